"""Every network of the zoo: its published size, what it maps, and that it can be trained."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_zoo import build, card, list_models
from keras_zoo.blocks import without_aux_heads
from keras_zoo.registry import CARDS

# Trainable parameters at 1000 classes. torchvision's and timm's own counts, and those of
# keras.applications for v1 and v2; AlexNet's, GoogLeNet's and ZFNet's follow from the papers'
# tables (Caffe's reference models count the first two alike).
PARAMETERS = {
    "simple_cnn": 315_146,
    "alexnet": 60_965_224,
    "alexnet_owt": 61_100_840,
    "zfnet": 62_357_608,
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "vgg11_bn": 132_868_840,
    "vgg13_bn": 133_053_736,
    "vgg16_bn": 138_365_992,
    "vgg19_bn": 143_678_248,
    "googlenet": 6_998_552,
    "googlenet_bn": 6_624_904,
    "inception_v3": 23_834_568,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnet50_v1": 25_583_592,
    "resnet101_v1": 44_601_832,
    "resnet152_v1": 60_268_520,
    "resnet50_v2": 25_568_360,
    "resnet101_v2": 44_577_896,
    "resnet152_v2": 60_236_904,
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x8d": 88_791_336,
    "wide_resnet50_2": 68_883_240,
    "seresnet50": 28_088_024,
}
PARAMETERS_WITH_AUX_HEADS = {"googlenet_bn": 13_004_888, "inception_v3": 27_161_264}

# 10^9 multiply-accumulates. Sources: torchvision's `_ops`; He et al. 2015, Table 1, for v1;
# TF-Slim's receptive-field table (half its operations), whose networks stride as v2 here, for v2;
# albanie/convnet-burden for alexnet; timm's model card for seresnet50; Netscope for googlenet.
# Nobody publishes one of zfnet or, as it has no paper, of simple_cnn.
PUBLISHED_GMACS = {
    "alexnet": 0.727,
    "alexnet_owt": 0.714,
    "vgg11": 7.609,
    "vgg13": 11.308,
    "vgg16": 15.470,
    "vgg19": 19.632,
    "vgg11_bn": 7.609,
    "vgg13_bn": 11.308,
    "vgg16_bn": 15.470,
    "vgg19_bn": 19.632,
    "googlenet": 1.60,
    "googlenet_bn": 1.498,
    "inception_v3": 5.713,
    "resnet18": 1.814,
    "resnet34": 3.664,
    "resnet50": 4.089,
    "resnet101": 7.801,
    "resnet152": 11.514,
    "resnet50_v1": 3.8,
    "resnet101_v1": 7.6,
    "resnet152_v1": 11.3,
    "resnet50_v2": 6.969 / 2,
    "resnet101_v2": 14.397 / 2,
    "resnet152_v2": 21.826 / 2,
    "resnext50_32x4d": 4.230,
    "resnext101_32x8d": 16.414,
    "wide_resnet50_2": 11.398,
    "seresnet50": 4.1,
}
# The same blocks at more depth add time and little else.
SHALLOW_FIRST = [
    pytest.param(name, marks=[pytest.mark.slow] if "101" in name or "152" in name else [])
    for name in list_models()
]
WITH_AUX_HEADS = [name for name in list_models() if card(name).aux_heads]


@pytest.fixture(autouse=True)
def _forget_models():
    yield
    keras.utils.clear_session()


@pytest.fixture
def _blank_weights(monkeypatch):
    """Zeros for He's and Glorot's random numbers: drawing them is most of the time of building."""

    def zeros(self, shape, dtype=None, **kwargs):
        return keras.ops.zeros(shape, dtype)

    monkeypatch.setattr(keras.initializers.VarianceScaling, "__call__", zeros)


def trainable(model: keras.Model) -> int:
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


def smallest(name: str, **options) -> keras.Model:
    px = (card(name).aux_heads if options.get("aux_heads") else card(name)).min_size_px
    shape = (px, px, card(name).input.num_channels)
    return build(name, num_classes=3, input_shape=shape, **options)


def images_for(model: keras.Model, batch: int = 2) -> np.ndarray:
    shape = (batch, *model.input.shape[1:])
    return np.random.default_rng(0).normal(size=shape).astype("float32")


@pytest.mark.usefixtures("_blank_weights")
@pytest.mark.parametrize("name", list_models())
def test_network_has_exactly_the_published_parameters(name):
    model = build(name)
    assert trainable(model) == card(name).parameters == PARAMETERS[name]
    assert model.input.shape == (None, *card(name).input.shape)
    assert model.output.shape == (None, card(name).num_classes)
    assert model.output.dtype == "float32"


@pytest.mark.usefixtures("_blank_weights")
@pytest.mark.parametrize("name", WITH_AUX_HEADS)
def test_auxiliary_heads_add_exactly_their_parameters(name):
    model = build(name, aux_heads=True)
    assert trainable(model) == card(name).aux_heads.parameters
    assert trainable(model) == PARAMETERS_WITH_AUX_HEADS.get(name, trainable(model))
    assert {output.shape for output in model.output.values()} == {(None, 1000)}
    assert trainable(without_aux_heads(model)) == card(name).parameters


def test_cards_state_the_published_compute_within_two_per_cent():
    assert set(CARDS) - set(PUBLISHED_GMACS) == {"zfnet", "simple_cnn"}
    gmacs = {name: card(name).gmacs for name in PUBLISHED_GMACS}
    assert gmacs == pytest.approx(PUBLISHED_GMACS, rel=0.02)


@pytest.mark.parametrize("name", SHALLOW_FIRST)
def test_smallest_image_trains_with_finite_gradients(name):
    model = smallest(name, dropout=0.0)
    with tf.GradientTape() as tape:
        logits = model(images_for(model), training=True)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits([0, 1], logits))
    gradients = tape.gradient(loss, model.trainable_variables)
    assert logits.shape == (2, 3)
    assert logits.dtype == tf.float32
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        assert np.isfinite(gradient).all(), variable.path


@pytest.mark.parametrize("name", WITH_AUX_HEADS)
def test_auxiliary_heads_train_and_are_lost_for_inference(name):
    model = smallest(name, aux_heads=True)
    with tf.GradientTape() as tape:
        outputs = model(images_for(model), training=True)
        loss = tf.add_n([tf.reduce_sum(logits**2) for logits in outputs.values()])
    assert all(np.isfinite(g).all() for g in tape.gradient(loss, model.trainable_variables))
    images = images_for(model)
    alone = without_aux_heads(model)
    assert not [layer.name for layer in alone.layers if layer.name.startswith("aux")]
    np.testing.assert_array_equal(alone(images), model(images, training=False)["logits"])


@pytest.mark.usefixtures("_blank_weights")
@pytest.mark.parametrize(
    ("name", "features"),
    [
        ("simple_cnn", (6, 6, 64)),
        ("alexnet", (6, 6, 256)),
        ("alexnet_owt", (6, 6, 256)),
        ("zfnet", (6, 6, 256)),
        ("vgg11", (7, 7, 512)),
        ("googlenet", (7, 7, 1024)),
        ("googlenet_bn", (7, 7, 1024)),
        ("inception_v3", (8, 8, 2048)),
        ("resnet18", (7, 7, 512)),
        ("resnet50", (7, 7, 2048)),
        ("resnet50_v1", (7, 7, 2048)),
        ("resnet50_v2", (7, 7, 2048)),
    ],
)
def test_network_without_top_gives_the_feature_map_of_the_paper(name, features):
    assert build(name, include_top=False).output.shape == (None, *features)


@pytest.mark.parametrize(
    "name",
    ["alexnet", "alexnet_owt", "zfnet", "vgg11", "googlenet", "googlenet_bn", "inception_v3"],
)
def test_smallest_size_is_the_smallest_that_leaves_a_pixel(name):
    px = card(name).min_size_px
    with pytest.raises(ValueError, match=f"needs at least {px} pixels"):
        build(name, input_shape=(px - 1, px, 3))
    module, function = card(name).builder.split(":")
    builder = getattr(__import__(module, fromlist=[function]), function)
    with pytest.raises(ValueError, match=r"."):
        builder(name, num_classes=3, input_shape=(px - 1, px, 3), include_top=True, dropout=0.0)


@pytest.mark.usefixtures("_blank_weights")
@pytest.mark.parametrize(
    "name", ["resnet18", "resnet50_v1", "resnet50_v2", "seresnet50", "wide_resnet50_2"]
)
def test_smallest_image_of_a_resnet_is_what_one_pixel_of_its_features_stands_for(name):
    px = card(name).min_size_px
    for count in (1, 2):
        shape = (count * px, count * px, 3)
        features = build(name, input_shape=shape, include_top=False).output.shape
        assert features[1:3] == (count, count)
    with pytest.raises(ValueError, match=f"needs at least {px} pixels"):
        build(name, input_shape=(px - 1, px, 3))


@pytest.mark.parametrize("name", WITH_AUX_HEADS)
def test_auxiliary_heads_state_the_smallest_image_they_take(name):
    px = card(name).aux_heads.min_size_px
    with pytest.raises(ValueError, match="at least"):
        build(name, input_shape=(px - 1, px, 3), aux_heads=True)


@pytest.mark.parametrize("shape", [(None, None, 3), (64, 64), (64, 64.0, 3), (64, 64, 0)])
def test_an_image_size_that_is_none_is_one_line(shape):
    with pytest.raises(ValueError, match=r"input_shape is .*; give \(height, width, channels\)"):
        build("resnet18", input_shape=shape)


def test_auxiliary_heads_are_refused_where_there_are_none():
    with pytest.raises(ValueError, match=r"resnet50 has no auxiliary heads; googlenet, .* have"):
        build("resnet50", aux_heads=True)
    with pytest.raises(ValueError, match="include_top"):
        build("googlenet", aux_heads=True, include_top=False)


@pytest.mark.parametrize(
    ("name", "projected"),
    [
        ("resnet18", {"stage2", "stage3", "stage4"}),
        ("resnet50", {"stage1", "stage2", "stage3", "stage4"}),
        ("seresnet50", {"stage1", "stage2", "stage3", "stage4"}),
        ("resnet50_v1", {"stage1", "stage2", "stage3", "stage4"}),
        ("resnet50_v2", {"stage1", "stage2", "stage3", "stage4"}),
    ],
)
def test_shortcut_is_projected_in_the_first_block_of_a_stage_that_changes_shape(name, projected):
    model = smallest(name)
    convolutions = {layer.name for layer in model.layers if layer.name.endswith("shortcut_conv")}
    assert convolutions == {f"{stage}_block1_shortcut_conv" for stage in projected}


@pytest.mark.parametrize(
    ("name", "strided"),
    [
        ("resnet50", ["stage2_block1_2_conv", "stage3_block1_2_conv", "stage4_block1_2_conv"]),
        ("resnet50_v1", ["stage2_block1_1_conv", "stage3_block1_1_conv", "stage4_block1_1_conv"]),
        ("resnet50_v2", ["stage1_block3_2_conv", "stage2_block4_2_conv", "stage3_block6_2_conv"]),
    ],
)
def test_stride_of_a_stage_is_where_its_version_has_it(name, strided):
    found = [
        layer.name
        for layer in smallest(name).layers
        if isinstance(layer, keras.layers.Conv2D)
        and layer.strides == (2, 2)
        and "block" in layer.name
        and "shortcut" not in layer.name
    ]
    assert found == strided


@pytest.mark.parametrize("name", ["alexnet", "googlenet", "inception_v3", "resnext50_32x4d"])
def test_network_computes_in_half_precision_and_answers_in_single(name):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = smallest(name)
        logits = model(images_for(model), training=False)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.layers[2].compute_dtype == "bfloat16"
    assert logits.dtype == tf.float32
    assert np.isfinite(logits).all()


# One network of each way of writing a convolution, and what its authors (or, for v1 and v2,
# keras.applications) give as epsilon.
EPSILONS = {
    "simple_cnn": None,
    "alexnet": None,
    "zfnet": None,
    "vgg11": None,
    "vgg11_bn": 1e-5,
    "googlenet": None,
    "googlenet_bn": 1e-3,
    "inception_v3": 1e-3,
    "resnet18": 1e-5,
    "resnet50_v1": 1.001e-5,
    "resnet50_v2": 1.001e-5,
    "resnext50_32x4d": 1e-5,
    "seresnet50": 1e-5,
}
AUX_DROPOUT = {"googlenet": [0.7, 0.7], "googlenet_bn": [0.7, 0.7], "inception_v3": []}


@pytest.mark.parametrize("name", EPSILONS)
def test_fresh_kernels_have_hes_variance_and_normalisation_its_constants(name):
    model = smallest(name)
    kinds = keras.layers.Conv2D | keras.layers.Dense
    for layer in model.layers:
        if isinstance(layer, kinds) and layer.name != "logits":
            kernel = layer.kernel.numpy()
            # Six standard errors of a normal sample's variance.
            bound = 6 * math.sqrt(2 / kernel.size)
            he = 2 / math.prod(kernel.shape[:-1])
            assert np.square(kernel).mean() == pytest.approx(he, rel=bound), layer.name
            assert not layer.use_bias or not layer.bias.numpy().any()
    norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    constants = {(layer.momentum, layer.epsilon) for layer in norms}
    assert constants == ({(0.9, EPSILONS[name])} if EPSILONS[name] else set())


@pytest.mark.parametrize("name", WITH_AUX_HEADS)
def test_auxiliary_heads_drop_out_at_the_rate_of_their_paper(name):
    model = smallest(name, aux_heads=True)
    kinds = keras.layers.Dropout
    heads = [x for x in model.layers if isinstance(x, kinds) and x.name.startswith("aux")]
    assert [layer.rate for layer in heads] == AUX_DROPOUT[name]


def test_dropout_rate_reaches_every_dropout_of_the_head():
    model = build("vgg11", input_shape=(32, 32, 3), dropout=0.25)
    rates = [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    assert rates == [0.25, 0.25]


def test_every_card_is_complete():
    assert set(CARDS) == set(PARAMETERS)
    for row in CARDS.values():
        if row.name == "simple_cnn":
            assert row.paper is row.published is row.year is None
        else:
            assert row.published
            assert 2012 <= row.year == row.paper.year <= 2017
