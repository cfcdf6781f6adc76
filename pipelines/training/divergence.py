"""Where a number that is none came from."""

from typing import Any

import keras
import tensorflow as tf

from pipelines.config import TrainConfig
from pipelines.training.losses import example_losses


class Diverged(Exception):
    """A loss or a gradient is not finite; the message says when and where."""


class _Recorder(keras.layers.Layer):
    """Passes on a layer's output, and keeps it."""

    def __init__(self, layer: keras.layers.Layer, records: list[tuple[Any, tf.Tensor]]) -> None:
        super().__init__(dtype=layer.dtype_policy, name=f"{layer.name}_output")
        self._keep = lambda output: records.append((layer, output))

    def call(self, output: tf.Tensor) -> tf.Tensor:
        self._keep(output)
        return output


def first_not_finite(
    model: keras.Model, config: TrainConfig, images: tf.Tensor, labels: tf.Tensor
) -> str | None:
    """The first layer, forwards and then backwards, whose numbers are not finite.

    Args:
        model: with the weights from before the step.
        config: the run's.
        images: uint8 `(B, S, S, C)`, those of one replica.
        labels: float32 `(B, K)`.

    Returns:
        What to tell a person; None where everything is finite.
    """
    records: list[tuple[Any, tf.Tensor]] = []
    recording = keras.models.clone_model(
        model,
        clone_function=lambda layer: layer,
        call_function=lambda layer, *args, **kwargs: _Recorder(layer, records)(
            layer(*args, **kwargs)
        ),
        recursive=True,
    )
    # What was recorded so far are symbols.
    records.clear()
    with tf.GradientTape() as tape:
        outputs = recording(images, training=True)
        loss = tf.reduce_sum(example_losses(config)(labels, outputs)) / len(images)
    for layer, output in records:
        if not _finite(output):
            return f"the output of layer {layer.name!r} is the first that is not finite"
    if not _finite(loss):
        return "the outputs of all layers are finite, the loss of them is not"
    sources = [[output, *_weights(layer)] for layer, output in records]
    gradients = tape.gradient(loss, sources, unconnected_gradients="zero")
    for (layer, _), of_layer in reversed(list(zip(records, gradients, strict=True))):
        if not all(_finite(gradient) for gradient in of_layer):
            return f"backwards, the gradient of layer {layer.name!r} is the first not finite"
    return None


def _weights(layer: Any) -> list[tf.Variable]:
    return [variable.value for variable in getattr(layer, "trainable_variables", ())]


def _finite(tensor: tf.Tensor) -> bool:
    return bool(tf.reduce_all(tf.math.is_finite(tensor)))
