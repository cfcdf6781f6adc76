"""The counter against sums done by hand."""

import keras
import pytest
from keras import layers

from keras_zoo import build, card, list_models, macs


def _macs(layer, shape):
    inputs = keras.Input(shape)
    return macs.count(keras.Model(inputs, layer(inputs)))


def test_a_convolution_uses_its_kernel_once_at_each_output_position():
    assert _macs(layers.Conv2D(16, (3, 5), strides=2), (11, 21, 4)) == 5 * 9 * (3 * 5 * 4 * 16)


def test_groups_divide_the_inputs_that_a_filter_sees():
    assert _macs(layers.Conv2D(8, 3, groups=2), (5, 5, 4)) == 3 * 3 * (3 * 3 * 2 * 8)


def test_a_depthwise_convolution_sees_one_channel_at_a_time():
    layer = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)
    assert _macs(layer, (6, 6, 5)) == 6 * 6 * (3 * 3 * 5 * 2)


def test_a_dense_layer_multiplies_every_input_by_every_unit():
    assert _macs(layers.Dense(7), (13,)) == 13 * 7
    assert _macs(layers.Dense(7), (4, 13)) == 4 * 13 * 7


@pytest.mark.parametrize(
    "layer",
    [layers.BatchNormalization, layers.ReLU, layers.MaxPooling2D, layers.ZeroPadding2D],
)
def test_layers_without_a_kernel_count_nothing(layer):
    assert _macs(layer(), (4, 4, 3)) == 0


def test_the_tutorial_network_counts_what_paper_and_pencil_give():
    first, second = 30 * 30 * (9 * 1 * 32), 13 * 13 * (9 * 32 * 64)
    assert macs.count(build("simple_cnn")) == first + second + 2304 * 128 + 128 * 10


def test_rows_add_up_to_the_model():
    model = build("resnet18")
    rows = macs.rows(model)
    assert sum(row.parameters for row in rows) == card("resnet18").parameters
    assert [row.name for row in rows] == [layer.name for layer in model.layers]
    assert rows[-1] == macs.LayerRow("logits", "Dense", (1000,), 513_000, 512_000)


@pytest.mark.parametrize("name", list_models())
def test_every_card_states_the_gmacs_that_are_counted(name):
    # To the digits that a card has. How near published figures are is in test_networks.py.
    # Weights without values: shapes are all that is counted.
    with keras.StatelessScope(initialize_variables=False):
        model = build(name)
    assert macs.count(model) / 1e9 == pytest.approx(card(name).gmacs, rel=1e-3)
    assert sum(row.parameters for row in macs.rows(model)) == card(name).parameters
