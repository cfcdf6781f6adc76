"""The blocks against closed formulas and Keras's native layers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_zoo.blocks import (
    BorderAveragePooling2D,
    GroupedConv2D,
    LocalResponseNormalization,
    ceil_max_pool,
    conv,
)


def lrn_of_2012(a: np.ndarray, k: float, n: int, alpha: float, beta: float) -> np.ndarray:
    """Section 3.3 of the AlexNet paper, channel by channel, in float64."""
    a = a.astype(np.float64)
    channels = a.shape[-1]
    b = np.empty_like(a)
    for i in range(channels):
        window = a[..., max(0, i - n // 2) : min(channels - 1, i + n // 2) + 1]
        b[..., i] = a[..., i] / (k + alpha * (window**2).sum(-1)) ** beta
    return b


def activations(scale: float = 30.0) -> np.ndarray:
    return (scale * np.random.default_rng(0).normal(size=(2, 3, 4, 9))).astype("float32")


def test_lrn_is_the_formula_of_2012():
    a = activations()
    ours = LocalResponseNormalization()(a).numpy()
    expected = lrn_of_2012(a, k=2, n=5, alpha=1e-4, beta=0.75)
    assert np.abs(ours - expected).max() < 1e-5 * np.abs(expected).max()


def test_lrn_gradient_is_that_of_the_formula():
    a = activations()
    upstream = np.random.default_rng(1).normal(size=a.shape)
    with tf.GradientTape() as tape:
        x = tf.constant(a)
        tape.watch(x)
        loss = tf.reduce_sum(LocalResponseNormalization()(x) * upstream.astype("float32"))
    ours = tape.gradient(loss, x).numpy()
    # d b[i] / d a[j] = delta_ij D_i^-beta - 2 alpha beta a_i a_j D_i^(-beta-1) where |i-j| <= 2
    a = a.astype(np.float64)
    channels = a.shape[-1]
    near = np.abs(np.subtract.outer(np.arange(channels), np.arange(channels))) <= 2
    scale = 2 + 1e-4 * (a**2) @ near
    coupled = (upstream * a * scale**-1.75) @ near
    expected = upstream * scale**-0.75 - 2 * 1e-4 * 0.75 * a * coupled
    assert np.abs(ours - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("policy", "dtype"), [("mixed_float16", "float16"), ("mixed_bfloat16", "bfloat16")]
)
def test_lrn_computes_in_float32_under_mixed_precision(policy, dtype):
    # The square of 300 overflows float16.
    a = activations(300.0)
    layer = LocalResponseNormalization(dtype=policy)
    with tf.GradientTape() as tape:
        x = tf.cast(a, dtype)
        tape.watch(x)
        b = layer(x)
    assert b.dtype.name == dtype
    expected = lrn_of_2012(tf.cast(x, "float32").numpy(), k=2, n=5, alpha=1e-4, beta=0.75)
    error = np.abs(tf.cast(b, "float32").numpy() - expected).max() / np.abs(expected).max()
    assert error < {"float16": 1e-3, "bfloat16": 1e-2}[dtype]
    assert np.isfinite(tf.cast(tape.gradient(b, x), "float32").numpy()).all()


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("use_bias", [True, False])
def test_grouped_convolution_is_the_native_one(padding, use_bias):
    options = {"strides": 1, "padding": padding, "groups": 4, "use_bias": use_bias}
    ours = GroupedConv2D(8, 3, bias_initializer="random_normal", **options)
    native = keras.layers.Conv2D(8, 3, **options)
    x = activations(1.0)[..., :8]
    y = ours(x)
    native.build(x.shape)
    native.set_weights(ours.get_weights())
    np.testing.assert_allclose(y, native(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"dilation_rate": 2},
        {"dilation_rate": (1, 3), "padding": "same"},
        {"activation": "softplus"},
        {"strides": (2, 1), "activation": "relu"},
        {"data_format": "channels_first", "bias_initializer": "random_normal"},
    ],
    ids=str,
)
def test_grouped_convolution_takes_every_option_of_the_native_one(options):
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 8)).astype("float32")
    ours = GroupedConv2D(8, 3, groups=4, **options)
    native = keras.layers.Conv2D(8, 3, groups=4, **options)
    y = ours(x)
    native.build(x.shape)
    native.set_weights(ours.get_weights())
    assert y.shape == native.compute_output_shape(x.shape)
    np.testing.assert_allclose(y, native(x), rtol=1e-5, atol=1e-5)


def test_own_layers_survive_a_keras_file(tmp_path):
    inputs = x = keras.Input((8, 8, 8))
    x = GroupedConv2D(8, 3, groups=2)(x)
    x = LocalResponseNormalization(radius=1, alpha=0.5)(x)
    model = keras.Model(inputs, BorderAveragePooling2D()(x))
    model.layers[-1].counts_padding.assign(1.0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    images = np.random.default_rng(0).normal(size=(1, 8, 8, 8)).astype("float32")
    np.testing.assert_array_equal(model(images), again(images))


@pytest.mark.parametrize("counts_padding", [0.0, 1.0])
def test_border_pooling_averages_what_it_says(counts_padding):
    x = activations()
    layer = BorderAveragePooling2D()
    layer.build(x.shape)
    layer.counts_padding.assign(counts_padding)
    padded = np.pad(x.astype(np.float64), [(0, 0), (1, 1), (1, 1), (0, 0)])
    ones = np.pad(np.ones((3, 4)), 1)
    for row in range(3):
        for column in range(4):
            total = padded[:, row : row + 3, column : column + 3].sum((1, 2))
            inside = ones[row : row + 3, column : column + 3].sum()
            expected = total / (9 if counts_padding else inside)
            np.testing.assert_allclose(layer(x)[:, row, column], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size_px", [7, 8, 9, 10])
@pytest.mark.parametrize("pool_px", [2, 3])
def test_ceil_pooling_takes_a_last_window_that_hangs_over_the_edge(size_px, pool_px):
    x = np.random.default_rng(0).random((1, size_px, size_px, 1)).astype("float32")
    inputs = keras.Input(x.shape[1:])
    pooled = keras.Model(inputs, ceil_max_pool(inputs, pool_px, name="pool"))(x).numpy()
    count = -(-(size_px - pool_px) // 2) + 1
    assert pooled.shape == (1, count, count, 1)
    for row in range(count):
        for column in range(count):
            window = x[0, 2 * row : 2 * row + pool_px, 2 * column : 2 * column + pool_px]
            assert pooled[0, row, column, 0] == window.max()


@pytest.mark.parametrize("size_px", [8, 9])
@pytest.mark.parametrize("kernel_px", [1, 3, 7])
def test_strided_convolution_pads_both_sides_alike(size_px, kernel_px):
    x = np.random.default_rng(0).normal(size=(1, size_px, size_px, 2)).astype("float32")
    inputs = keras.Input(x.shape[1:])
    model = keras.Model(inputs, conv(inputs, 3, kernel_px, stride=2, use_bias=False, name="c"))
    kernel = model.get_layer("c").kernel.numpy()
    padded = np.pad(x, [(0, 0)] + [(kernel_px // 2, kernel_px // 2)] * 2 + [(0, 0)])
    y = model(x).numpy()
    assert y.shape == (1, -(-size_px // 2), -(-size_px // 2), 3)
    for row in range(y.shape[1]):
        for column in range(y.shape[2]):
            window = padded[0, 2 * row :, 2 * column :][:kernel_px, :kernel_px]
            expected = np.einsum("hwc,hwcf->f", window, kernel)
            np.testing.assert_allclose(y[0, row, column], expected, rtol=1e-4, atol=1e-4)
