"""From a `TrainConfig` to a Keras model that takes uint8 images."""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import keras
import tensorflow as tf
from keras import layers

import keras_zoo
from keras_zoo import InputSpec
from pipelines.config import FineTuningConfig, TrainConfig
from pipelines.errors import BadInput
from pipelines.training.optimizers import depth_group

Outputs = tf.Tensor | list[tf.Tensor]


def image_classifier(
    network: str,
    spec: InputSpec,
    num_classes: int,
    weights: str | Path | None = None,
    *,
    width: float = 1.0,
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
            width=width,
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
        width=config.width,
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


def num_parameters(model: keras.Model) -> int:
    """Of kernels, biases, scales and offsets, as a network's card counts them; frozen ones too."""
    statistics = ("moving_mean", "moving_variance")
    return sum(math.prod(w.shape) for w in model.weights if w.name not in statistics)


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
