"""Inception v3: Szegedy, Vanhoucke, Ioffe, Shlens, Wojna, "Rethinking the Inception Architecture
for Computer Vision", CVPR 2016 (arXiv:1512.00567), as its authors released it (the paper's Table 1
leaves the filters of the branches open).

Layer names are chosen so that alphabetical order is the order of the release.

Deviations:
- Batch normalisation has a scale beside its shift, as in torchvision; the release has the shift
  alone. Momentum 0.9, epsilon 1e-3.
- He initialisation in the place of truncated normals of 0.1.
- Whether average pooling counts the zeros beyond the border is stored with the weights, since
  published weights differ in it (`BorderAveragePooling2D`).
- One auxiliary head, after the last 17x17 module, batch-normalised throughout, as released.
"""

from functools import partial

import keras
from keras import KerasTensor, layers

from keras_zoo.blocks import BorderAveragePooling2D, concat, conv_bn_relu, pooled_classifier

unit = partial(conv_bn_relu, epsilon=1e-3)


def branch(x: KerasTensor, *steps: tuple, name: str) -> KerasTensor:
    """Convolutions one after the other, a `(filters, kernel)` or `(filters, kernel, 2)` each.

    Padded, except those of stride 2.
    """
    for index, (filters, kernel_px, *stride) in enumerate(steps, start=1):
        x = unit(
            x,
            filters,
            kernel_px,
            stride=stride[0] if stride else 1,
            padding="valid" if stride else "same",
            name=f"{name}_{index}" if len(steps) > 1 else name,
        )
    return x


def fork(x: KerasTensor, filters: int, name: str) -> KerasTensor:
    """1x3 and 3x1 convolutions side by side: `(H, W, C) -> (H, W, 2*filters)`."""
    forks = [unit(x, filters, (1, 3), name=f"{name}a"), unit(x, filters, (3, 1), name=f"{name}b")]
    return concat(forks, name)


def pool_branch(x: KerasTensor, filters: int, name: str) -> KerasTensor:
    """Average pooling and a projection: `(H, W, C) -> (H, W, filters)`."""
    x = BorderAveragePooling2D(name=f"{name}_average")(x)
    return unit(x, filters, 1, name=name)


def stem(x: KerasTensor) -> KerasTensor:
    """`(299, 299, 3) -> (35, 35, 192)`."""
    x = unit(x, 32, 3, stride=2, padding="valid", name="conv1a")
    x = unit(x, 32, 3, padding="valid", name="conv2a")
    x = unit(x, 64, 3, name="conv2b")
    x = layers.MaxPooling2D(3, strides=2, name="conv2_pool")(x)
    x = unit(x, 80, 1, name="conv3b")
    x = unit(x, 192, 3, padding="valid", name="conv4a")
    return layers.MaxPooling2D(3, strides=2, name="conv4_pool")(x)


def module_a(x: KerasTensor, pool_filters: int, name: str) -> KerasTensor:
    """5x5 and doubled 3x3: `(H, W, C) -> (H, W, 224 + pool_filters)`."""
    branches = [
        branch(x, (64, 1), name=f"{name}_1x1"),
        branch(x, (48, 1), (64, 5), name=f"{name}_5x5"),
        branch(x, (64, 1), (96, 3), (96, 3), name=f"{name}_double3x3"),
        pool_branch(x, pool_filters, name=f"{name}_pool"),
    ]
    return concat(branches, name)


def reduction_a(x: KerasTensor, name: str) -> KerasTensor:
    """`(35, 35, 288) -> (17, 17, 768)`."""
    branches = [
        branch(x, (384, 3, 2), name=f"{name}_3x3"),
        branch(x, (64, 1), (96, 3), (96, 3, 2), name=f"{name}_double3x3"),
        layers.MaxPooling2D(3, strides=2, name=f"{name}_pool")(x),
    ]
    return concat(branches, name)


def module_b(x: KerasTensor, filters: int, name: str) -> KerasTensor:
    """7x7 factored into 1x7 and 7x1, single and double: `(H, W, C) -> (H, W, 768)`."""
    f, row, column = filters, (1, 7), (7, 1)
    branches = [
        branch(x, (192, 1), name=f"{name}_1x1"),
        branch(x, (f, 1), (f, row), (192, column), name=f"{name}_7x7"),
        branch(
            x,
            (f, 1),
            (f, column),
            (f, row),
            (f, column),
            (192, row),
            name=f"{name}_double7x7",
        ),
        pool_branch(x, 192, name=f"{name}_pool"),
    ]
    return concat(branches, name)


def reduction_b(x: KerasTensor, name: str) -> KerasTensor:
    """`(17, 17, 768) -> (8, 8, 1280)`."""
    branches = [
        branch(x, (192, 1), (320, 3, 2), name=f"{name}_3x3"),
        branch(x, (192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2), name=f"{name}_7x7x3"),
        layers.MaxPooling2D(3, strides=2, name=f"{name}_pool")(x),
    ]
    return concat(branches, name)


def module_c(x: KerasTensor, name: str) -> KerasTensor:
    """3x3 forked into 1x3 and 3x1: `(H, W, C) -> (H, W, 2048)`."""
    single = branch(x, (384, 1), name=f"{name}_3x3_1")
    double = branch(x, (448, 1), (384, 3), name=f"{name}_double3x3")
    branches = [
        branch(x, (320, 1), name=f"{name}_1x1"),
        fork(single, 384, name=f"{name}_3x3_2"),
        fork(double, 384, name=f"{name}_double3x3_3"),
        pool_branch(x, 192, name=f"{name}_pool"),
    ]
    return concat(branches, name)


MODULES = {
    "mixed5b": partial(module_a, pool_filters=32),
    "mixed5c": partial(module_a, pool_filters=64),
    "mixed5d": partial(module_a, pool_filters=64),
    "mixed6a": reduction_a,
    "mixed6b": partial(module_b, filters=128),
    "mixed6c": partial(module_b, filters=160),
    "mixed6d": partial(module_b, filters=160),
    "mixed6e": partial(module_b, filters=192),
    "mixed7a": reduction_b,
    "mixed7b": module_c,
    "mixed7c": module_c,
}
AUX_SOURCE = "mixed6e"


def inception_v3(
    name: str,
    *,
    num_classes: int,
    input_shape: tuple[int, int, int],
    include_top: bool,
    dropout: float,
) -> keras.Model:
    """`(H, W, C)` float32, normalised -> `(num_classes,)` float32 logits.

    Without the top: the last feature map, `(8, 8, 2048)` at 299 pixels.
    """
    inputs = keras.Input(input_shape, name="image")
    x = stem(inputs)
    for module_name, module in MODULES.items():
        x = module(x, name=module_name)
    if include_top:
        x = pooled_classifier(x, num_classes, dropout)
    return keras.Model(inputs, x, name=name)


def with_aux_heads(model: keras.Model) -> keras.Model:
    """The same network with its auxiliary classifier, for training.

    Its output is a dict of float32 logits, `(num_classes,)` each: `logits` and `aux1`.
    """
    x = model.get_layer(AUX_SOURCE).output
    x = layers.AveragePooling2D(5, strides=3, name="aux1_pool")(x)
    x = unit(x, 128, 1, name="aux1_conv1")
    x = unit(x, 768, 5, padding="valid", name="aux1_conv2")
    x = layers.GlobalAveragePooling2D(name="aux1_global_pool")(x)
    x = layers.Dense(model.output.shape[-1], dtype="float32", name="aux1_logits")(x)
    return keras.Model(model.input, {"logits": model.output, "aux1": x}, name=model.name)
