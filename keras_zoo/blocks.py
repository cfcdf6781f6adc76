"""The words that all families are written in.

Every function takes a Keras tensor (channels last) and gives one; `name` is the prefix of the
layers it makes, and checkpoints depend on it. Shapes leave the batch out.
"""

from collections.abc import Callable

import keras
from keras import KerasTensor, layers, ops

KernelSize = int | tuple[int, int]
# A convolution and what a family puts behind it, called as `conv_relu` and its siblings are.
Unit = Callable[..., KerasTensor]


@keras.saving.register_keras_serializable("keras_zoo")
class GroupedConv2D(layers.Conv2D):
    """`Conv2D(groups=g)` computed as g ordinary convolutions, side by side.

    The weights and the result are those of the native grouped convolution, which on a CPU runs
    many times slower under TensorFlow (benchmarks/grouped_conv.py).
    """

    def call(self, inputs):
        axis = -1 if self.data_format == "channels_last" else 1
        pairs = zip(
            ops.split(inputs, self.groups, axis=axis),
            ops.split(self.kernel, self.groups, axis=-1),
            strict=True,
        )
        outputs = ops.concatenate([self._conv(x, kernel) for x, kernel in pairs], axis=axis)
        if self.use_bias:
            outputs += self.bias if axis == -1 else self.bias[:, None, None]
        return self.activation(outputs)

    def _conv(self, x, kernel):
        return ops.conv(
            x,
            kernel,
            self.strides,
            self.padding,
            data_format=self.data_format,
            dilation_rate=self.dilation_rate,
        )


@keras.saving.register_keras_serializable("keras_zoo")
class LocalResponseNormalization(layers.Layer):
    """Divides by the activity of neighbouring channels: `(H, W, C) -> (H, W, C)`.

    `b[c] = a[c] / (bias + alpha * sum(a[c']**2 for |c' - c| <= radius)) ** beta`: section 3.3 of
    Krizhevsky et al. 2012, whose window of n = 5 channels is a radius of 2. Computed in float32
    whatever the dtype policy; the result has the dtype of the input.
    """

    def __init__(self, radius=2, bias=2.0, alpha=1e-4, beta=0.75, **kwargs):
        super().__init__(**kwargs)
        self.radius = radius
        self.bias = bias
        self.alpha = alpha
        self.beta = beta

    def call(self, inputs):
        x = ops.cast(inputs, "float32")
        channels = x.shape[-1]
        squares = ops.pad(ops.square(x), [(0, 0)] * 3 + [(self.radius, self.radius)])
        window = sum(squares[..., start : start + channels] for start in range(2 * self.radius + 1))
        x = x * ops.power(self.bias + self.alpha * window, -self.beta)
        return ops.cast(x, inputs.dtype)

    def get_config(self):
        settings = {key: getattr(self, key) for key in ("radius", "bias", "alpha", "beta")}
        return {**super().get_config(), **settings}


@keras.saving.register_keras_serializable("keras_zoo")
class BorderAveragePooling2D(layers.Layer):
    """The mean of each 3x3 neighbourhood, stride 1: `(H, W, C) -> (H, W, C)`.

    At the border TensorFlow averages the pixels there are, torch all nine with zeros beyond the
    edge; weights trained with one lose accuracy with the other. So which of the two it is belongs
    to the weights and is stored with them: `counts_padding`, a scalar that is never trained, 0
    (TensorFlow's way, and a fresh network's) or 1 (torch's).
    """

    def build(self, input_shape):
        self.counts_padding = self.add_weight(
            shape=(), initializer="zeros", trainable=False, name="counts_padding"
        )

    def call(self, inputs):
        share_inside = _mean_of_nine(ops.ones((1, *inputs.shape[1:3], 1), inputs.dtype))
        divisor = self.counts_padding + (1 - self.counts_padding) * share_inside
        return _mean_of_nine(inputs) / divisor


def _mean_of_nine(x):
    """3x3 means, stride 1, with zeros beyond the edge: `(B, H, W, C) -> (B, H, W, C)`."""
    return ops.average_pool(ops.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)]), 3, 1, "valid")


def conv(
    x: KerasTensor,
    filters: int,
    kernel_px: KernelSize,
    *,
    stride: int = 1,
    padding: str = "same",
    groups: int = 1,
    use_bias: bool = True,
    name: str,
) -> KerasTensor:
    """Convolution: `(H, W, C) -> (ceil(H/s), ceil(W/s), filters)`, or unpadded if `valid`.

    `same` pads both sides alike (odd kernels). Keras pads an even input unevenly when the stride
    is 2; the papers' own frameworks, and the weights they published, do not.
    """
    if padding == "same" and stride > 1:
        if kernel_px > 1:
            x = layers.ZeroPadding2D(kernel_px // 2, name=f"{name}_pad")(x)
        padding = "valid"
    kind = layers.Conv2D if groups == 1 else GroupedConv2D
    return kind(
        filters,
        kernel_px,
        strides=stride,
        padding=padding,
        groups=groups,
        use_bias=use_bias,
        kernel_initializer="he_normal",
        name=name,
    )(x)


def conv_relu(
    x: KerasTensor,
    filters: int,
    kernel_px: KernelSize,
    *,
    stride: int = 1,
    padding: str = "same",
    groups: int = 1,
    name: str,
) -> KerasTensor:
    """`conv` with a bias, then ReLU."""
    x = conv(
        x, filters, kernel_px, stride=stride, padding=padding, groups=groups, name=f"{name}_conv"
    )
    return layers.ReLU(name=f"{name}_relu")(x)


def conv_bn(
    x: KerasTensor,
    filters: int,
    kernel_px: KernelSize,
    *,
    stride: int = 1,
    padding: str = "same",
    groups: int = 1,
    use_bias: bool = False,
    epsilon: float = 1e-5,
    name: str,
) -> KerasTensor:
    """`conv`, then batch normalisation."""
    x = conv(
        x,
        filters,
        kernel_px,
        stride=stride,
        padding=padding,
        groups=groups,
        use_bias=use_bias,
        name=f"{name}_conv",
    )
    return layers.BatchNormalization(momentum=0.9, epsilon=epsilon, name=f"{name}_bn")(x)


def conv_bn_relu(
    x: KerasTensor,
    filters: int,
    kernel_px: KernelSize,
    *,
    stride: int = 1,
    padding: str = "same",
    groups: int = 1,
    use_bias: bool = False,
    epsilon: float = 1e-5,
    name: str,
) -> KerasTensor:
    """`conv_bn`, then ReLU."""
    x = conv_bn(
        x,
        filters,
        kernel_px,
        stride=stride,
        padding=padding,
        groups=groups,
        use_bias=use_bias,
        epsilon=epsilon,
        name=name,
    )
    return layers.ReLU(name=f"{name}_relu")(x)


def ceil_max_pool(x: KerasTensor, pool_px: int, *, name: str) -> KerasTensor:
    """Max pooling, stride 2, size rounded up: `(H, W, C) -> (ceil((H-p)/2) + 1, ..., C)`.

    The last window may hang over the lower and right edge, as in Caffe. `x` is not negative (it
    comes from a ReLU), so zeros beyond the edge change no maximum.
    """
    overhang = tuple((0, (pool_px - size_px) % 2) for size_px in x.shape[1:3])
    x = layers.ZeroPadding2D(overhang, name=f"{name}_pad")(x)
    return layers.MaxPooling2D(pool_px, strides=2, name=name)(x)


def lrn(x: KerasTensor, *, name: str) -> KerasTensor:
    """Local response normalisation with the constants of 2012: `(H, W, C) -> (H, W, C)`."""
    return LocalResponseNormalization(name=name)(x)


def concat(branches: list[KerasTensor], name: str) -> KerasTensor:
    """Stacks branches of one size along the channels."""
    return layers.Concatenate(name=name)(branches)


def classifier(x: KerasTensor, num_classes: int, dropout: float) -> KerasTensor:
    """Dropout and the last dense layer: `(F,) -> (num_classes,)` logits, always float32."""
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    return layers.Dense(num_classes, dtype="float32", name="logits")(x)


def pooled_classifier(x: KerasTensor, num_classes: int, dropout: float) -> KerasTensor:
    """Global average pooling, then `classifier`: `(H, W, C) -> (num_classes,)`."""
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return classifier(x, num_classes, dropout)


def dense_classifier(x: KerasTensor, num_classes: int, dropout: float) -> KerasTensor:
    """AlexNet's head, two hidden layers of 4096: `(H, W, C) -> (num_classes,)`.

    Dropout acts on both hidden layers.
    """
    x = layers.Flatten(name="flatten")(x)
    x = dense_relu(x, 4096, name="fc1")
    if dropout:
        x = layers.Dropout(dropout, name="fc1_dropout")(x)
    x = dense_relu(x, 4096, name="fc2")
    return classifier(x, num_classes, dropout)


def dense_relu(x: KerasTensor, units: int, *, name: str) -> KerasTensor:
    """Dense layer with ReLU: `(F,) -> (units,)`."""
    # Uniform: of the same variance as He's normal, and drawn several times as fast, which is felt
    # at VGG's hundred million weights.
    return layers.Dense(units, activation="relu", kernel_initializer="he_uniform", name=name)(x)


def without_aux_heads(model: keras.Model) -> keras.Model:
    """The network alone, sharing its weights, from one built with auxiliary heads for training."""
    return keras.Model(model.input, model.output["logits"], name=model.name)
