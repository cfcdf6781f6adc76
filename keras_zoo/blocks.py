"""The words that all families are written in.

Every function takes a Keras tensor (channels last) and gives one; `name` is the prefix of the
layers it makes, and checkpoints depend on it.
"""

from keras import KerasTensor, layers


def conv(
    x: KerasTensor, filters: int, kernel_px: int, *, stride: int = 1, use_bias: bool, name: str
) -> KerasTensor:
    """Convolution padded evenly on all sides: `(H, W, C) -> (ceil(H/s), ceil(W/s), filters)`.

    Keras's `padding="same"` pads an even input unevenly when the stride is 2; the papers' own
    frameworks, and the weights they published, pad both sides alike.
    """
    if stride > 1 and kernel_px > 1:
        x = layers.ZeroPadding2D(kernel_px // 2, name=f"{name}_pad")(x)
    return layers.Conv2D(
        filters,
        kernel_px,
        strides=stride,
        padding="same" if stride == 1 else "valid",
        use_bias=use_bias,
        kernel_initializer="he_normal",
        name=name,
    )(x)


def conv_relu(x: KerasTensor, filters: int, kernel_px: int, *, name: str) -> KerasTensor:
    """Unpadded convolution with a bias, then ReLU: `(H, W, C) -> (H-k+1, W-k+1, filters)`."""
    x = layers.Conv2D(filters, kernel_px, kernel_initializer="he_normal", name=f"{name}_conv")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def conv_bn(
    x: KerasTensor, filters: int, kernel_px: int, *, stride: int = 1, name: str
) -> KerasTensor:
    """Convolution without bias, then batch normalisation: `(H, W, C) -> (H/s, W/s, filters)`."""
    x = conv(x, filters, kernel_px, stride=stride, use_bias=False, name=f"{name}_conv")
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(x)


def conv_bn_relu(
    x: KerasTensor, filters: int, kernel_px: int, *, stride: int = 1, name: str
) -> KerasTensor:
    """`conv_bn`, then ReLU."""
    x = conv_bn(x, filters, kernel_px, stride=stride, name=name)
    return layers.ReLU(name=f"{name}_relu")(x)


def classifier(x: KerasTensor, num_classes: int, dropout: float) -> KerasTensor:
    """Dropout and the last dense layer: `(F,) -> (num_classes,)` logits, always float32."""
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    return layers.Dense(num_classes, dtype="float32", name="logits")(x)
