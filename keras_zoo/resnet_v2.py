"""Pre-activation ResNet-50, 101 and 152: He, Zhang, Ren, Sun, "Identity Mappings in Deep Residual
Networks", ECCV 2016 (arXiv:1603.05027), as keras.applications ships them (ResNet50V2, ResNet101V2,
ResNet152V2).

Deviations, all of them keras.applications' too:
- A stage halves the feature map in its last block, not in the first of the next; the last stage
  keeps its size.
- An identity shortcut of stride 2 takes every second pixel.
- The projections, the last 1x1 of each block and the stem have a bias.
- The stem's max pooling pads with zeros although its input is not yet rectified.
- Batch normalisation: epsilon 1.001e-5; momentum 0.9, where keras.applications has 0.99.
"""

import keras
from keras import KerasTensor, layers

from keras_zoo.blocks import conv, conv_bn_relu, pooled_classifier
from keras_zoo.resnet import DEPTHS, FILTERS, stem_pool

NETWORKS = {f"resnet{depth}_v2": blocks for depth, blocks in DEPTHS.items()}
EPSILON = 1.001e-5


def bn_relu(x: KerasTensor, name: str) -> KerasTensor:
    """Batch normalisation, then ReLU."""
    x = layers.BatchNormalization(momentum=0.9, epsilon=EPSILON, name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def preactivation_block(x: KerasTensor, filters: int, stride: int, name: str) -> KerasTensor:
    """Normalise and rectify, then 1x1, 3x3, fourfold 1x1: `(H, W, C) -> (H/s, W/s, 4*filters)`."""
    active = bn_relu(x, f"{name}_preact")
    y = conv_bn_relu(active, filters, 1, epsilon=EPSILON, name=f"{name}_1")
    y = conv_bn_relu(y, filters, 3, stride=stride, epsilon=EPSILON, name=f"{name}_2")
    y = conv(y, 4 * filters, 1, name=f"{name}_3_conv")
    if x.shape[-1] != y.shape[-1]:
        x = conv(active, 4 * filters, 1, stride=stride, name=f"{name}_shortcut_conv")
    elif x.shape != y.shape:
        x = layers.MaxPooling2D(1, strides=stride, name=f"{name}_shortcut_pool")(x)
    return layers.Add(name=f"{name}_out")([x, y])


def resnet_v2(
    name: str,
    *,
    num_classes: int,
    input_shape: tuple[int, int, int],
    include_top: bool,
    dropout: float,
) -> keras.Model:
    """`(H, W, C)` float32, normalised -> `(num_classes,)` float32 logits.

    Without the top: the last feature map, `(H/32, W/32, 2048)`, normalised and rectified.
    """
    inputs = keras.Input(input_shape, name="image")
    x = stem_pool(conv(inputs, 64, 7, stride=2, name="stem_conv"))
    for stage, (filters, depth) in enumerate(zip(FILTERS, NETWORKS[name], strict=True), start=1):
        for index in range(1, depth + 1):
            stride = 2 if stage < 4 and index == depth else 1
            x = preactivation_block(x, filters, stride, f"stage{stage}_block{index}")
    x = bn_relu(x, "post")
    if include_top:
        x = pooled_classifier(x, num_classes, dropout)
    return keras.Model(inputs, x, name=name)
