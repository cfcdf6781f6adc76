"""Networks of other widths: how large each layer is, and with which weights they go."""

import keras
import numpy as np
import pytest

from keras_zoo import build, card
from keras_zoo.width import scaled
from pipelines.command import parse
from pipelines.config import EvaluateConfig, TrainConfig
from pipelines.errors import BadInput
from pipelines.evaluation.evaluate import evaluate
from pipelines.training.model import training_classifier
from pipelines.training.run import Run, starting_weights
from pipelines.training.train import train
from tests.conftest import digits_config

WITH_AUX_HEADS = ("googlenet_bn", "inception_v3")
OTHERS = ("alexnet_owt", "zfnet", "vgg11_bn", "resnet50_v1", "resnext50_32x4d", "wide_resnet50_2")


@pytest.fixture(autouse=True)
def _forget_models():
    yield
    keras.utils.clear_session()


def trainable(model):
    return sum(np.prod(variable.shape) for variable in model.trainable_variables)


def chain(sizes, kernel_px, channels, bias):
    """Parameters of layers one after the other, with as many of a bias or of a normalisation."""
    inputs = (channels, *sizes[:-1])
    return sum((kernel_px**2 * i + bias) * o for i, o in zip(inputs, sizes, strict=True))


def test_a_simple_cnn_of_half_the_width_has_the_parameters_of_its_layers():
    dense = chain((64, 10), 1, 32 * 6 * 6, bias=1)
    expected = chain((16, 32), 3, 1, bias=1) + dense
    assert trainable(build("simple_cnn", width=0.5)) == expected == 79_242


def test_a_vgg_of_a_quarter_of_the_width_has_the_parameters_of_its_layers():
    convolutions = (16, 16, 32, 32, *[64] * 3, *[128] * 6)
    expected = chain(convolutions, 3, 3, bias=1) + chain((1024, 1024, 5), 1, 128, bias=1)
    assert trainable(build("vgg16", num_classes=5, input_shape=(32, 32, 3), width=0.25)) == expected


@pytest.mark.parametrize(("width", "base"), [(0.5, 32), (1.25, 80), (0.3, 16)])
def test_a_resnet_of_another_width_has_the_parameters_of_its_layers(width, base):
    """The stages of 0.3 have 19.2, 38.4, 76.8 and 153.6 filters: 16, 40, 80 and 152."""
    stages = (16, 40, 80, 152) if width == 0.3 else (base, 2 * base, 4 * base, 8 * base)
    expected, channels = (49 * 3 + 2) * base, base
    for filters in stages:
        for inputs in (channels, filters):
            expected += chain((filters, filters), 3, inputs, bias=2)
        expected += (channels + 2) * filters if filters != channels else 0
        channels = filters
    expected += (channels + 1) * 7
    assert trainable(build("resnet18", num_classes=7, width=width)) == expected


@pytest.mark.parametrize(
    ("name", "aux_heads"),
    [
        *((name, False) for name in ("alexnet", "googlenet", "resnet50_v2", "seresnet50")),
        *(pytest.param(name, True, marks=pytest.mark.slow) for name in WITH_AUX_HEADS),
        *(pytest.param(name, False, marks=pytest.mark.slow) for name in OTHERS),
    ],
)
def test_every_layer_but_the_classifiers_is_half_as_wide(name, aux_heads):
    seen = card(name)
    px = (seen.aux_heads if aux_heads else seen).min_size_px
    whole, half = (
        build(name, num_classes=3, input_shape=(px, px, 3), aux_heads=aux_heads, width=width)
        for width in (1.0, 0.5)
    )
    assert [layer.name for layer in half.layers] == [layer.name for layer in whole.layers]
    for before, after in zip(whole.layers, half.layers, strict=True):
        size = before.output.shape[-1]
        if isinstance(before, keras.layers.Conv2D | keras.layers.Dense):
            # GoogLeNet has layers of 24 filters, whose half is no multiple of 8.
            expected = 3 if before.name.endswith("logits") else {24: 16}.get(size, size // 2)
            assert after.output.shape[-1] == expected, before.name
    logits = half(np.ones((2, px, px, 3), "float32"))
    outputs = logits.values() if aux_heads else [logits]
    assert all(output.shape == (2, 3) and np.isfinite(output).all() for output in outputs)


def test_grouped_convolutions_keep_their_groups():
    model = build("resnext50_32x4d", input_shape=(32, 32, 3), num_classes=3, width=0.3)
    grouped = [layer for layer in model.layers if getattr(layer, "groups", 1) > 1]
    # 38.4 filters are 32; 76.8, 153.6 and 307.2 of the later stages 64, 160 and 320.
    assert {layer.filters for layer in grouped} == {32, 64, 160, 320}
    assert {layer.groups for layer in grouped} == {32}


@pytest.mark.parametrize(
    ("size", "width", "rounded"), [(64, 1.0, 64), (24, 0.5, 16), (64, 0.3, 16), (64, 0.001, 8)]
)
def test_sizes_are_the_nearest_multiple_of_eight(size, width, rounded):
    assert scaled(size, width, 8) == rounded


@pytest.mark.parametrize("width", [0, -0.5, float("nan"), float("inf")])
def test_a_width_that_is_none_is_refused(width):
    with pytest.raises(ValueError, match=r"width is .*; it is above 0"):
        build("simple_cnn", width=width)


def test_a_run_refuses_a_width_that_is_none():
    with pytest.raises(BadInput, match=r"width is 0\.0; it is above 0"):
        parse(TrainConfig, ["d", "--network", "simple_cnn", "--width=0"])


def test_weights_of_another_width_are_refused(tmp_path):
    told = r"width is 0\.5, and 'imagenet' of resnet18 was trained at 1; leave out one"
    with pytest.raises(ValueError, match=told):
        build("resnet18", width=0.5, weights="imagenet")
    with pytest.raises(BadInput, match=told):
        parse(TrainConfig, ["d", "--network=resnet18", "--width=0.5", "--init=imagenet"])
    file = tmp_path / "narrow.weights.h5"
    narrow = build("simple_cnn", width=0.5)
    narrow.save_weights(file)
    with pytest.raises(ValueError, match=r"simple_cnn, at this input_shape and width\?"):
        build("simple_cnn", weights=file)
    again = build("simple_cnn", width=0.5, weights=file)
    for before, after in zip(narrow.weights, again.weights, strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_narrow_network_is_trained_and_measured_as_such(digits, tmp_path):
    config = digits_config(digits, tmp_path / "run", "--epochs", "2", "--width", "0.5")
    trained = train(config)
    assert trained.parameters == 79_242
    assert Run.open(config.run).classifier().count_params() == 79_242
    assert evaluate(EvaluateConfig(config.run)).top1 == trained.top1
    other = ["d", "--network", "simple_cnn", "--init", str(config.run)]
    with pytest.raises(BadInput, match=r"run of width 0\.5, and width is 1\.0; .* --width 0\.5"):
        starting_weights(parse(TrainConfig, other))
    same = parse(TrainConfig, [*other, "--width", "0.5"])
    begun = training_classifier(same, 10, starting_weights(same))
    for before, after in zip(Run.open(config.run).classifier().weights, begun.weights, strict=True):
        np.testing.assert_array_equal(before, after)
