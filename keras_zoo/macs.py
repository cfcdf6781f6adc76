"""Multiply-accumulates of a built model, counted layer by layer.

Every number of a kernel is multiplied and added once at each position of the layer's output: so
many for convolutions, plain, grouped or depthwise, and for dense layers, whose output is a single
position. Biases, normalisation, activations and pooling multiply no kernel and count nothing, as
in the published figures.
"""

import math
from dataclasses import dataclass

import keras


@dataclass(frozen=True)
class LayerRow:
    """One layer of a model.

    Args:
        name: the layer's name.
        type: its class.
        output_shape: of one image; with the batch left out.
        parameters: trainable ones.
        macs: multiply-accumulates for one image.
    """

    name: str
    type: str
    output_shape: tuple[int, ...]
    parameters: int
    macs: int


def rows(model: keras.Model) -> list[LayerRow]:
    """The layers of a functional model of a fixed input size, in the order of the model."""
    return [
        LayerRow(
            name=layer.name,
            type=type(layer).__name__,
            output_shape=tuple(layer.output.shape[1:]),
            parameters=sum(math.prod(weight.shape) for weight in layer.trainable_weights),
            macs=_macs(layer),
        )
        for layer in model.layers
    ]


def count(model: keras.Model) -> int:
    """Multiply-accumulates of one image through the whole model."""
    return sum(row.macs for row in rows(model))


def _macs(layer: keras.Layer) -> int:
    positions = math.prod(layer.output.shape[1:-1])
    kernels = [weight.shape for weight in layer.weights if len(weight.shape) > 1]
    return positions * sum(math.prod(shape) for shape in kernels)
