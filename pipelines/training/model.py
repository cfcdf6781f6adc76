"""From a `TrainConfig` to a Keras model that takes uint8 images, and what it is trained with."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf
from keras import layers

import keras_zoo
from keras_zoo import InputSpec
from pipelines.config import TrainConfig
from pipelines.errors import BadInput


def image_classifier(
    network: str, spec: InputSpec, num_classes: int, weights: str | None = None
) -> keras.Model:
    """A network with its normalisation: uint8 `(B, S, S, C)` -> float32 logits `(B, num_classes)`.

    Channels arrive as RGB (or L) and leave in the order that `spec.channels` names.

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
            network, num_classes=num_classes, input_shape=spec.shape, weights=weights
        )
    except ValueError as error:
        raise BadInput(str(error)) from error
    return keras.Model(pixels, backbone(x), name=f"{network}_classifier")


def learning_rate(
    config: TrainConfig, steps_per_epoch: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Linear warm-up to `peak_lr`, then a cosine to zero at the last step."""
    warmup_steps = round(config.optimizer.warmup_epochs * steps_per_epoch)
    decay_steps = max(1, config.epochs * steps_per_epoch - warmup_steps)
    if not warmup_steps:
        return keras.optimizers.schedules.CosineDecay(config.peak_lr, decay_steps)
    return keras.optimizers.schedules.CosineDecay(
        0.0, decay_steps, warmup_target=config.peak_lr, warmup_steps=warmup_steps
    )


def optimizer(config: TrainConfig, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """Keras's optimizer with its schedule; it neither clips nor averages, which the loop does."""
    sgd = keras.optimizers.SGD(
        learning_rate(config, steps_per_epoch),
        momentum=config.optimizer.momentum,
        nesterov=config.optimizer.nesterov,
        weight_decay=config.optimizer.weight_decay or None,
    )
    sgd.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return sgd


def example_losses(config: TrainConfig) -> Callable[[tf.Tensor, Any], tf.Tensor]:
    """The loss of each example: labels `(B, K)`, outputs -> float32 `(B,)`.

    Outputs are the logits, or a list whose first is.
    """
    return keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=config.label_smoothing, reduction=None
    )


def logits_of(outputs: Any) -> tf.Tensor:
    """The classifier's own logits among a model's outputs."""
    return outputs[0] if isinstance(outputs, list | tuple) else outputs


def every_layer(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers of a model and of the models in it, in the order they compute in."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from every_layer(layer)
        else:
            yield layer


def at_size(model: keras.Model, network: str, spec: InputSpec, num_classes: int) -> keras.Model:
    """A model of the same weights for images of another size, `spec`'s.

    Raises:
        BadInput: some of the network's weights depend on the size.
    """
    other = image_classifier(network, spec, num_classes)
    own = {layer.name: layer for layer in every_layer(model) if layer.variables}
    for layer in every_layer(other):
        ours = own.get(layer.name, layer)
        if [v.shape for v in layer.variables] != [v.shape for v in ours.variables]:
            raise BadInput(
                f"{network} has a dense layer ({layer.name}) that takes images of one size only; "
                "leave out augment.first_size_px"
            )

    def shared(layer: keras.layers.Layer) -> keras.layers.Layer:
        return own.get(layer.name, layer)

    return keras.models.clone_model(other, clone_function=shared, recursive=True)
