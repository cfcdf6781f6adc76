"""GoogLeNet, the winner of ILSVRC 2014: Szegedy et al., "Going Deeper with Convolutions", CVPR 2015
(arXiv:1409.4842), Table 1.

`googlenet` is the network of the paper: biases, 5x5 convolutions, local response normalisation.
`googlenet_bn` is the one torchvision publishes weights of: batch normalisation in the place of
biases and of response normalisation, 3x3 in the place of 5x5.

Deviations of `googlenet`:
- The response normalisation has AlexNet's constants; the paper names none.
- He initialisation; the paper does not describe its own.

Deviations of `googlenet_bn`, all of them torchvision's too:
- Batch normalisation (momentum 0.9, epsilon 1e-3) after every convolution; no biases, no response
  normalisation.
- 3x3 convolutions in the branch that the paper calls 5x5.
- The last pooling before the fifth stage is 2x2.
- The auxiliary heads average into 4x4 cells whatever the size of the image.
- Its input is scaled to [-1, 1], as the weights were trained.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import keras
from keras import KerasTensor, layers

from keras_zoo.blocks import (
    Unit,
    ceil_max_pool,
    concat,
    conv_bn_relu,
    conv_relu,
    dense_relu,
    lrn,
    pooled_classifier,
)

AUX_DROPOUT = 0.7
AUX_SOURCES = {"aux1": "inception4a", "aux2": "inception4d"}

# Filters of: 1x1; 3x3 reduce, 3x3; 5x5 reduce, 5x5; pool projection.
STAGES = (
    {
        "inception3a": (64, 96, 128, 16, 32, 32),
        "inception3b": (128, 128, 192, 32, 96, 64),
    },
    {
        "inception4a": (192, 96, 208, 16, 48, 64),
        "inception4b": (160, 112, 224, 24, 64, 64),
        "inception4c": (128, 128, 256, 24, 64, 64),
        "inception4d": (112, 144, 288, 32, 64, 64),
        "inception4e": (256, 160, 320, 32, 128, 128),
    },
    {
        "inception5a": (256, 160, 320, 32, 128, 128),
        "inception5b": (384, 192, 384, 48, 128, 128),
    },
)


@dataclass(frozen=True)
class Variant:
    """What tells the published network and its batch-normalised successor apart.

    Args:
        unit: every convolution, with what stands behind it.
        normalise: response normalisation in the stem, or none.
        wide_px: side of the kernels in the branch called 5x5.
        last_pool_px: side of the pooling before the fifth stage.
        aux_pool: pooling that an auxiliary head begins with, to 4x4 at the published size.
    """

    unit: Unit
    normalise: Callable[..., KerasTensor]
    wide_px: int
    last_pool_px: int
    aux_pool: Callable[..., layers.Layer]


def unchanged(x: KerasTensor, *, name: str) -> KerasTensor:
    """No response normalisation."""
    return x


NETWORKS = {
    "googlenet": Variant(
        unit=conv_relu,
        normalise=lrn,
        wide_px=5,
        last_pool_px=3,
        aux_pool=partial(layers.AveragePooling2D, 5, strides=3),
    ),
    "googlenet_bn": Variant(
        unit=partial(conv_bn_relu, epsilon=1e-3),
        normalise=unchanged,
        wide_px=3,
        last_pool_px=2,
        aux_pool=partial(layers.AdaptiveAveragePooling2D, 4),
    ),
}


def stem(x: KerasTensor, unit: Unit, normalise: Callable[..., KerasTensor]) -> KerasTensor:
    """`(224, 224, 3) -> (28, 28, 192)`, in the order of Figure 3."""
    x = unit(x, 64, 7, stride=2, name="conv1")
    x = ceil_max_pool(x, 3, name="pool1")
    x = normalise(x, name="pool1_lrn")
    x = unit(x, 64, 1, name="conv2_reduce")
    x = unit(x, 192, 3, name="conv2")
    x = normalise(x, name="conv2_lrn")
    return ceil_max_pool(x, 3, name="pool2")


def inception(
    x: KerasTensor, unit: Unit, wide_px: int, filters: tuple[int, ...], name: str
) -> KerasTensor:
    """Four branches side by side: `(H, W, C) -> (H, W, 1x1 + 3x3 + 5x5 + pool projection)`."""
    direct, reduce3, conv3, reduce5, conv5, projection = filters
    branch1 = unit(x, direct, 1, name=f"{name}_1x1")
    branch2 = unit(x, reduce3, 1, name=f"{name}_3x3_reduce")
    branch2 = unit(branch2, conv3, 3, name=f"{name}_3x3")
    branch3 = unit(x, reduce5, 1, name=f"{name}_5x5_reduce")
    branch3 = unit(branch3, conv5, wide_px, name=f"{name}_5x5")
    branch4 = layers.MaxPooling2D(3, strides=1, padding="same", name=f"{name}_pool")(x)
    branch4 = unit(branch4, projection, 1, name=f"{name}_projection")
    return concat([branch1, branch2, branch3, branch4], name)


def googlenet(
    name: str,
    *,
    num_classes: int,
    input_shape: tuple[int, int, int],
    include_top: bool,
    dropout: float,
) -> keras.Model:
    """`(H, W, C)` float32, normalised -> `(num_classes,)` float32 logits.

    Without the top: the last feature map, `(H/32, W/32, 1024)`.
    """
    variant = NETWORKS[name]
    inputs = keras.Input(input_shape, name="image")
    x = stem(inputs, variant.unit, variant.normalise)
    for stage, modules in enumerate(STAGES, start=3):
        for module, filters in modules.items():
            x = inception(x, variant.unit, variant.wide_px, filters, module)
        if stage < 5:
            side_px = 3 if stage == 3 else variant.last_pool_px
            x = ceil_max_pool(x, side_px, name=f"pool{stage}")
    if include_top:
        x = pooled_classifier(x, num_classes, dropout)
    return keras.Model(inputs, x, name=name)


def with_aux_heads(model: keras.Model) -> keras.Model:
    """The same network with its two auxiliary classifiers, for training.

    Its output is a dict of float32 logits, `(num_classes,)` each: `logits`, `aux1`, `aux2`. The
    paper adds the losses of the auxiliary ones at a weight of 0.3.
    """
    outputs = {"logits": model.output}
    for name, module in AUX_SOURCES.items():
        features = model.get_layer(module).output
        outputs[name] = _aux_head(features, model.name, model.output.shape[-1], name)
    return keras.Model(model.input, outputs, name=model.name)


def _aux_head(x: KerasTensor, network: str, num_classes: int, name: str) -> KerasTensor:
    """`(14, 14, C) -> (num_classes,)`, by way of a `(4, 4, 128)` feature map."""
    variant = NETWORKS[network]
    x = variant.aux_pool(name=f"{name}_pool")(x)
    x = variant.unit(x, 128, 1, name=f"{name}_conv1")
    x = layers.Flatten(name=f"{name}_flatten")(x)
    x = dense_relu(x, 1024, name=f"{name}_fc1")
    x = layers.Dropout(AUX_DROPOUT, name=f"{name}_dropout")(x)
    return layers.Dense(num_classes, dtype="float32", name=f"{name}_logits")(x)
