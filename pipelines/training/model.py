"""From a `TrainConfig` to a Keras model that takes uint8 images, and what it is trained with."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import tensorflow as tf
from keras import layers

import keras_zoo
from keras_zoo import InputSpec
from pipelines.config import FineTuningConfig, TrainConfig
from pipelines.errors import BadInput
from pipelines.training.optimizers import SGD, Lamb, RMSprop, Treated, Treatment, depth_group
from pipelines.training.schedules import Schedule, schedule

Outputs = tf.Tensor | list[tf.Tensor]

# A class with a larger share of a mixed label than this is in the image.
PRESENT_SHARE = 0.2


def image_classifier(
    network: str,
    spec: InputSpec,
    num_classes: int,
    weights: str | Path | None = None,
    *,
    dropout: float | None = None,
    aux_heads: bool = False,
) -> keras.Model:
    """A network with its normalisation: uint8 `(B, S, S, C)` -> float32 logits `(B, num_classes)`.

    Channels arrive as RGB (or L) and leave in the order that `spec.channels` names. With auxiliary
    heads the output is a list: the logits, then those of each head.

    Raises:
        BadInput: weights that cannot be had, or are not of this network.
    """
    pixels = x = keras.Input(spec.shape, dtype="uint8", name="pixels")
    if spec.channels == "BGR":
        x = x[..., ::-1]
    scale = [1 / std for std in spec.std]
    offset = [-mean / std for mean, std in zip(spec.mean, spec.std, strict=True)]
    x = layers.Rescaling(scale, offset, dtype="float32", name="normalise")(x)
    try:
        backbone = keras_zoo.build(
            network,
            num_classes=num_classes,
            input_shape=spec.shape,
            dropout=dropout,
            aux_heads=aux_heads,
            weights=weights,
        )
    except ValueError as error:
        raise BadInput(str(error)) from error
    outputs = backbone(x)
    if aux_heads:
        heads = sorted(outputs.keys() - {"logits"})
        outputs = [outputs["logits"], *(outputs[head] for head in heads)]
    return keras.Model(pixels, outputs, name=f"{network}_classifier")


def training_classifier(
    config: TrainConfig, num_classes: int, weights: str | Path | None = None
) -> keras.Model:
    """The network as it is trained: with its dropout and its auxiliary heads, parts of it frozen.

    Raises:
        BadInput: as `image_classifier`; a number of `aux_weights` that is not that of its heads; a
            layer to freeze that it does not have.
    """
    model = _of_size(config, config.input.size_px, num_classes, weights)
    heads = len(model.outputs) - 1
    if len(config.aux_weights) != heads:
        raise BadInput(
            f"aux_weights is {list(config.aux_weights)}; {config.network} has {heads} auxiliary "
            "classifiers, and each takes one"
        )
    freeze(model, config.fine_tuning)
    return model


def _of_size(
    config: TrainConfig, size_px: int, num_classes: int, weights: str | Path | None = None
) -> keras.Model:
    return image_classifier(
        config.network,
        dataclasses.replace(config.input, size_px=size_px),
        num_classes,
        weights,
        dropout=config.dropout,
        aux_heads=bool(config.aux_weights),
    )


def at_size(model: keras.Model, config: TrainConfig, size_px: int, num_classes: int) -> keras.Model:
    """A `training_classifier`'s weights in a model for images of another size.

    Raises:
        BadInput: some of the network's weights depend on the size.
    """
    other = _of_size(config, size_px, num_classes)
    own = {layer.name: layer for layer in every_layer(model) if layer.variables}
    for layer in every_layer(other):
        ours = own.get(layer.name, layer)
        if [v.shape for v in layer.variables] != [v.shape for v in ours.variables]:
            raise BadInput(
                f"{config.network} has a dense layer ({layer.name}) that takes images of one size "
                "only; leave out augment.size_px and augment.first_size_px"
            )

    def shared(layer: keras.layers.Layer) -> keras.layers.Layer:
        return own.get(layer.name, layer)

    return keras.models.clone_model(other, clone_function=shared, recursive=True)


def logits_of(outputs: Outputs) -> tf.Tensor:
    """The classifier's own logits among a model's outputs."""
    return outputs[0] if isinstance(outputs, list | tuple) else outputs


def every_layer(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers of a model and of the models in it, in the order they compute in."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from every_layer(layer)
        else:
            yield layer


def freeze(model: keras.Model, config: FineTuningConfig) -> None:
    """Takes layers out of training, by the beginnings of their names.

    Raises:
        BadInput: no layer's name begins so, or nothing is left to train.
    """
    with_weights = [layer for layer in every_layer(model) if layer.weights]
    for beginning in config.freeze:
        frozen = [layer for layer in with_weights if layer.name.startswith(beginning)]
        if not frozen:
            groups = list(dict.fromkeys(depth_group(layer.name) for layer in with_weights))
            raise BadInput(
                f"fine_tuning.freeze has {beginning!r}, and no layer with weights begins so; its "
                f"groups of layers are {', '.join(groups)}"
            )
        for layer in frozen:
            layer.trainable = False
    if not model.trainable_variables:
        raise BadInput(f"fine_tuning.freeze is {list(config.freeze)}; nothing is left to train")


def learning_rate(config: TrainConfig, steps_per_epoch: int) -> Schedule:
    """The learning rate of each step, from 0."""
    return schedule(config.schedule, config.peak_lr, config.epochs, steps_per_epoch)


# What each optimizer takes of the config, under Keras's names.
OPTIMIZERS: dict[str, tuple[type[Treated], dict[str, str]]] = {
    "sgd": (SGD, {"momentum": "momentum", "nesterov": "nesterov"}),
    "rmsprop": (RMSprop, {"momentum": "momentum", "rho": "rho", "epsilon": "epsilon"}),
    "lamb": (Lamb, {"beta_1": "momentum", "epsilon": "epsilon"}),
}


def optimizer(config: TrainConfig, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """Keras's optimizer with its schedule; it neither clips nor averages, which the loop does."""
    kind, settings = OPTIMIZERS[config.optimizer.name]
    treatment = Treatment(
        l2=config.optimizer.l2,
        weight_decay=config.optimizer.weight_decay,
        depth_factor=config.fine_tuning.depth_factor,
        head_only_steps=round(config.fine_tuning.head_only_epochs * steps_per_epoch),
    )
    taken = {name: getattr(config.optimizer, field) for name, field in settings.items()}
    return kind(learning_rate(config, steps_per_epoch), treatment, **taken)


def present(labels: tf.Tensor) -> tf.Tensor:
    """Which classes a mixed label calls present, as 0 and 1: `(B, K) -> (B, K)`.

    As in Wightman, Touvron, Jegou, "ResNet strikes back", 2021 (arXiv:2110.00476): every class that
    was mixed in is a target of its own, whatever its share, as long as it is above `PRESENT_SHARE`.
    """
    return tf.cast(labels > PRESENT_SHARE, labels.dtype)


# The target made of a label, and the loss of logits against it.
LOSSES = {
    "softmax": (tf.identity, keras.losses.categorical_crossentropy),
    "binary": (present, keras.losses.binary_crossentropy),
}


def example_losses(config: TrainConfig) -> Callable[[tf.Tensor, Outputs], tf.Tensor]:
    """The loss of each example: float32 labels `(B, K)`, outputs -> float32 `(B,)`.

    Outputs are the logits, or a list of them and those of the auxiliary heads, whose losses are
    added at `config.aux_weights`. The binary loss is the mean over the classes.
    """
    target, loss = LOSSES[config.loss]
    weights = (1.0, *config.aux_weights)

    def of_examples(labels: tf.Tensor, outputs: Outputs) -> tf.Tensor:
        every = outputs if isinstance(outputs, list | tuple) else [outputs]
        targets = (1 - config.label_smoothing) * target(labels)
        targets += config.label_smoothing / labels.shape[-1]
        return sum(
            weight * loss(targets, logits, from_logits=True)
            for weight, logits in zip(weights, every, strict=True)
        )

    return of_examples
