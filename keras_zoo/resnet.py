"""ResNet-18, 34, 50, 101 and 152: He, Zhang, Ren, Sun, "Deep Residual Learning for Image
Recognition", CVPR 2016 (arXiv:1512.03385), Table 1, option B shortcuts.

Deviations:
- v1.5: in a bottleneck block the stride is on the 3x3 convolution, not on the first 1x1; about
  0.5% better top-1 at 12% more compute, and what torchvision and the published recipes train.
- The convolutions before batch normalisation have no bias (the normalisation's shift is one).
- Padding is even on all sides (as in the paper's Caffe), never Keras's uneven "same".
- Batch normalisation: momentum 0.9, epsilon 1e-5.
"""

import keras
from keras import KerasTensor, layers

from keras_zoo.blocks import classifier, conv_bn, conv_bn_relu


def basic_block(x: KerasTensor, filters: int, stride: int, name: str) -> KerasTensor:
    """Two 3x3 convolutions: `(H, W, C) -> (H/s, W/s, filters)`."""
    y = conv_bn_relu(x, filters, 3, stride=stride, name=f"{name}_1")
    y = conv_bn(y, filters, 3, name=f"{name}_2")
    return _add_shortcut(x, y, stride, name)


def bottleneck_block(x: KerasTensor, filters: int, stride: int, name: str) -> KerasTensor:
    """1x1, 3x3 and a fourfold 1x1: `(H, W, C) -> (H/s, W/s, 4*filters)`."""
    y = conv_bn_relu(x, filters, 1, name=f"{name}_1")
    y = conv_bn_relu(y, filters, 3, stride=stride, name=f"{name}_2")
    y = conv_bn(y, 4 * filters, 1, name=f"{name}_3")
    return _add_shortcut(x, y, stride, name)


def _add_shortcut(x: KerasTensor, y: KerasTensor, stride: int, name: str) -> KerasTensor:
    """Adds the block's input, projected where the shapes differ (option B), then ReLU."""
    if x.shape != y.shape:
        x = conv_bn(x, y.shape[-1], 1, stride=stride, name=f"{name}_shortcut")
    return layers.ReLU(name=f"{name}_out")(layers.Add(name=f"{name}_add")([x, y]))


FILTERS = (64, 128, 256, 512)
NETWORKS = {
    "resnet18": (basic_block, (2, 2, 2, 2)),
    "resnet34": (basic_block, (3, 4, 6, 3)),
    "resnet50": (bottleneck_block, (3, 4, 6, 3)),
    "resnet101": (bottleneck_block, (3, 4, 23, 3)),
    "resnet152": (bottleneck_block, (3, 8, 36, 3)),
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
    x = layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
    x = layers.MaxPooling2D(3, strides=2, name="stem_pool")(x)
    for stage, (filters, depth) in enumerate(zip(FILTERS, depths, strict=True), start=1):
        for index in range(1, depth + 1):
            stride = 2 if stage > 1 and index == 1 else 1
            x = block(x, filters, stride, f"stage{stage}_block{index}")
    if include_top:
        x = layers.GlobalAveragePooling2D(name="pool")(x)
        x = classifier(x, num_classes, dropout)
    return keras.Model(inputs, x, name=name)
