"""ResNet, the winner of ILSVRC 2015, and the networks made of its blocks.

`resnet18` to `resnet152`: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR
2016 (arXiv:1512.03385), Table 1, option B shortcuts.
`resnext*`: Xie, Girshick, Dollar, Tu, He, "Aggregated Residual Transformations for Deep Neural
Networks", CVPR 2017 (arXiv:1611.05431).
`wide_resnet50_2`: Zagoruyko, Komodakis, "Wide Residual Networks", BMVC 2016 (arXiv:1605.07146).
`seresnet50`: Hu, Shen, Sun, "Squeeze-and-Excitation Networks", CVPR 2018 (arXiv:1709.01507), whose
blocks won ILSVRC 2017.

Deviations:
- v1.5: in a bottleneck block the stride is on the 3x3 convolution, not on the first 1x1 (that is
  `resnet_v1`); about 0.5% better top-1 at 12% more compute, and what torchvision and the published
  recipes train.
- The convolutions before batch normalisation have no bias (the normalisation's shift is one).
- Padding is even on all sides (as in the paper's Caffe), never Keras's uneven "same".
- Batch normalisation: momentum 0.9, epsilon 1e-5.
- `resnext*` and `wide_resnet50_2`: v1.5 too, as torchvision publishes them.
- `seresnet50`: v1.5 and biases in both layers of the excitation, as timm publishes it.
"""

from collections.abc import Callable
from functools import partial

import keras
from keras import KerasTensor, layers

from keras_zoo.blocks import Unit, conv, conv_bn, conv_bn_relu, conv_relu, pooled_classifier


def basic_block(x: KerasTensor, filters: int, stride: int, name: str) -> KerasTensor:
    """Two 3x3 convolutions: `(H, W, C) -> (H/s, W/s, filters)`."""
    y = conv_bn_relu(x, filters, 3, stride=stride, name=f"{name}_1")
    y = conv_bn(y, filters, 3, name=f"{name}_2")
    return add_shortcut(x, y, stride, conv_bn, name)


def bottleneck_block(
    x: KerasTensor, filters: int, stride: int, name: str, *, widen: int = 1, groups: int = 1
) -> KerasTensor:
    """1x1, 3x3 (`widen` times as wide, in groups) and 1x1: `(H, W, C) -> (H/s, W/s, 4*filters)`."""
    y = _bottleneck(x, filters, stride, name, widen=widen, groups=groups)
    return add_shortcut(x, y, stride, conv_bn, name)


def se_bottleneck_block(x: KerasTensor, filters: int, stride: int, name: str) -> KerasTensor:
    """`bottleneck_block` whose channels are reweighted before the shortcut joins."""
    y = _bottleneck(x, filters, stride, name)
    y = squeeze_excite(y, reduction=16, name=f"{name}_se")
    return add_shortcut(x, y, stride, conv_bn, name)


def _bottleneck(
    x: KerasTensor, filters: int, stride: int, name: str, *, widen: int = 1, groups: int = 1
) -> KerasTensor:
    y = conv_bn_relu(x, widen * filters, 1, name=f"{name}_1")
    y = conv_bn_relu(y, widen * filters, 3, stride=stride, groups=groups, name=f"{name}_2")
    return conv_bn(y, 4 * filters, 1, name=f"{name}_3")


def squeeze_excite(x: KerasTensor, reduction: int, name: str) -> KerasTensor:
    """Scales each channel by a gate in (0, 1), computed from all: `(H, W, C) -> (H, W, C)`."""
    channels = x.shape[-1]
    gate = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_pool")(x)
    gate = conv_relu(gate, channels // reduction, 1, name=f"{name}_reduce")
    gate = conv(gate, channels, 1, name=f"{name}_expand_conv")
    gate = layers.Activation("sigmoid", name=f"{name}_gate")(gate)
    return layers.Multiply(name=f"{name}_scale")([x, gate])


def add_shortcut(
    x: KerasTensor, y: KerasTensor, stride: int, projection: Unit, name: str
) -> KerasTensor:
    """Adds the block's input, projected where the shapes differ (option B), then ReLU."""
    if x.shape != y.shape:
        x = projection(x, y.shape[-1], 1, stride=stride, name=f"{name}_shortcut")
    return layers.ReLU(name=f"{name}_out")(layers.Add(name=f"{name}_add")([x, y]))


def stem_pool(x: KerasTensor) -> KerasTensor:
    """3x3 max pooling of stride 2, padded with zeros: `(H, W, C) -> (ceil(H/2), ceil(W/2), C)`."""
    x = layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
    return layers.MaxPooling2D(3, strides=2, name="stem_pool")(x)


def stages(
    x: KerasTensor, block: Callable[..., KerasTensor], depths: tuple[int, ...]
) -> KerasTensor:
    """The blocks; each stage but the first begins with a stride of 2."""
    for stage, (filters, depth) in enumerate(zip(FILTERS, depths, strict=True), start=1):
        for index in range(1, depth + 1):
            stride = 2 if stage > 1 and index == 1 else 1
            x = block(x, filters, stride, f"stage{stage}_block{index}")
    return x


FILTERS = (64, 128, 256, 512)
DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
NETWORKS = {
    "resnet18": (basic_block, (2, 2, 2, 2)),
    "resnet34": (basic_block, (3, 4, 6, 3)),
    "resnet50": (bottleneck_block, DEPTHS[50]),
    "resnet101": (bottleneck_block, DEPTHS[101]),
    "resnet152": (bottleneck_block, DEPTHS[152]),
    "resnext50_32x4d": (partial(bottleneck_block, widen=2, groups=32), DEPTHS[50]),
    "resnext101_32x8d": (partial(bottleneck_block, widen=4, groups=32), DEPTHS[101]),
    "wide_resnet50_2": (partial(bottleneck_block, widen=2), DEPTHS[50]),
    "seresnet50": (se_bottleneck_block, DEPTHS[50]),
}


def resnet(
    name: str,
    *,
    num_classes: int,
    input_shape: tuple[int, int, int],
    include_top: bool,
    dropout: float,
) -> keras.Model:
    """`(H, W, C)` float32, normalised -> `(num_classes,)` float32 logits.

    Without the top: the last feature map, `(H/32, W/32, F)`, F = 512 (basic) or 2048 (bottleneck).
    """
    block, depths = NETWORKS[name]
    inputs = keras.Input(input_shape, name="image")
    x = conv_bn_relu(inputs, 64, 7, stride=2, name="stem")
    x = stages(stem_pool(x), block, depths)
    if include_top:
        x = pooled_classifier(x, num_classes, dropout)
    return keras.Model(inputs, x, name=name)
