"""ResNet-50, 101 and 152 with the stride where it was first published: He, Zhang, Ren, Sun, "Deep
Residual Learning for Image Recognition", CVPR 2016 (arXiv:1512.03385), as keras.applications ships
them (ResNet50, ResNet101, ResNet152).

The stride of a bottleneck block is on its first 1x1 convolution; `resnet` has it on the 3x3.

Deviations, all of them keras.applications' too:
- Every convolution has a bias before its batch normalisation, which makes it idle.
- Batch normalisation: epsilon 1.001e-5; momentum 0.9, where keras.applications has 0.99.
"""

from functools import partial

import keras
from keras import KerasTensor

from keras_zoo.blocks import conv_bn, conv_bn_relu, pooled_classifier
from keras_zoo.resnet import DEPTHS, add_shortcut, stages, stem_pool

NETWORKS = {f"resnet{depth}_v1": blocks for depth, blocks in DEPTHS.items()}

unit = partial(conv_bn, use_bias=True, epsilon=1.001e-5)
unit_relu = partial(conv_bn_relu, use_bias=True, epsilon=1.001e-5)


def bottleneck_block(x: KerasTensor, filters: int, stride: int, name: str) -> KerasTensor:
    """1x1 with the stride, 3x3 and a fourfold 1x1: `(H, W, C) -> (H/s, W/s, 4*filters)`."""
    y = unit_relu(x, filters, 1, stride=stride, name=f"{name}_1")
    y = unit_relu(y, filters, 3, name=f"{name}_2")
    y = unit(y, 4 * filters, 1, name=f"{name}_3")
    return add_shortcut(x, y, stride, unit, name)


def resnet_v1(
    name: str,
    *,
    num_classes: int,
    input_shape: tuple[int, int, int],
    include_top: bool,
    dropout: float,
) -> keras.Model:
    """`(H, W, C)` float32, normalised -> `(num_classes,)` float32 logits.

    Without the top: the last feature map, `(H/32, W/32, 2048)`.
    """
    inputs = keras.Input(input_shape, name="image")
    x = unit_relu(inputs, 64, 7, stride=2, name="stem")
    x = stages(stem_pool(x), bottleneck_block, NETWORKS[name])
    if include_top:
        x = pooled_classifier(x, num_classes, dropout)
    return keras.Model(inputs, x, name=name)
