"""Runs that begin with the weights of others: what stays, what is fresh, what is refused."""

import shutil

import numpy as np
import pytest
import tensorflow as tf

from pipelines.command import parse
from pipelines.config import PrepareConfig, TrainConfig
from pipelines.data.preparation import prepare
from pipelines.errors import BadInput
from pipelines.training.model import every_layer, training_classifier
from pipelines.training.run import Run, starting_weights
from pipelines.training.state import State
from pipelines.training.step import TrainingStep
from pipelines.training.train import train
from tests.conftest import digits_config
from tests.photographs import photograph

SMALL = ["d", "--network", "resnet18", "--input.size_px", "32", "--schedule.warmup_epochs", "0"]
PUBLISHED = [*SMALL, "--global_batch_size=8", "--init=imagenet"]


def freezing(layers):
    return parse(TrainConfig, [*PUBLISHED, f"--fine_tuning.freeze={layers}"])


def values(model):
    """Every weight by layer and variable, the statistics of batch normalisation among them."""
    return {
        f"{layer.name}/{variable.name}": variable.numpy()
        for layer in every_layer(model)
        for variable in layer.weights
    }


@pytest.fixture(scope="module")
def two_classes(workplace):
    """A prepared data set of two classes of photographs."""
    source = workplace / "two_classes"
    for number in range(20):
        split, name = ("val", "train")[number < 16], "ab"[number % 2]
        photograph(source / split / name / f"{number}.JPEG", seed=number)
    prepare(PrepareConfig(str(source), workplace / "two"))
    return workplace / "two"


def test_frozen_stages_stay_bit_for_bit_and_the_rest_learns():
    config = freezing("[stem,stage1]")
    state = State(config, 3, None, steps_per_epoch=10)
    before = values(state.model)
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (8, 32, 32, 3), np.uint8)
    step = TrainingStep(state, config, {32: state.model})
    for _ in range(2):
        step(tf.constant(images), tf.one_hot(draw.integers(0, 3, 8), 3), stop=False)
    for name, now in values(state.model).items():
        frozen = name.startswith(("stem", "stage1"))
        assert np.array_equal(now, before[name]) == frozen, name


def test_layers_that_were_never_trained_cannot_be_frozen():
    with pytest.raises(BadInput, match=r"fine_tuning\.freeze is \['stem'\] and init is not given"):
        parse(TrainConfig, [*SMALL, "--fine_tuning.freeze=[stem]"])


def test_a_layer_that_is_not_there_cannot_be_frozen():
    with pytest.raises(BadInput, match=r"'stage9', and no .* are stem, stage1, .*, logits"):
        training_classifier(freezing("[stage9]"), 3)
    with pytest.raises(BadInput, match="nothing is left to train"):
        training_classifier(freezing("[stem,stage,logits]"), 3)


def test_a_run_goes_on_from_another_with_other_classes(run, two_classes, tmp_path):
    """All but the classifier is held, so that what it begins with is seen at its end."""
    source = tmp_path / "source"
    shutil.copytree(run, source)
    arguments = f"{two_classes} --network simple_cnn --init {source} --run {tmp_path / 'tuned'}"
    held = "--fine_tuning.freeze [stage,fc1] --epochs 1 --schedule.warmup_epochs 0"
    size = "--global_batch_size 8 --augment.crop_area [0.5,1]"
    config = parse(TrainConfig, f"{arguments} {held} {size}".split())
    train(config)
    ours, theirs = (values(Run.open(folder).classifier()) for folder in (config.run, run))
    assert ours.pop("logits/kernel").shape == (128, 2)
    assert theirs.pop("logits/kernel").shape == (128, 10)
    for name in theirs.keys() - {"logits/bias"}:
        np.testing.assert_array_equal(ours[name], theirs[name])
    shutil.rmtree(source)
    assert Run.open(config.run).config() == config
    assert train(config).epochs == 1


def test_a_run_hands_on_what_it_sees_of_an_image(digits, run):
    config = digits_config(digits, run.parent / "another", "--init", str(run))
    assert config.input == Run.open(run).config().input
    wider = ["d", "--network", "simple_cnn", "--init", str(run), "--input.size_px", "40"]
    assert parse(TrainConfig, wider).input.size_px == 40


def test_the_run_of_another_network_is_refused(run, tmp_path):
    config = parse(TrainConfig, ["d", "--network", "resnet18", "--init", str(run)])
    with pytest.raises(BadInput, match="a run of network simple_cnn, and network is resnet18"):
        starting_weights(config)
    nothing = parse(TrainConfig, [*SMALL, "--init", str(tmp_path)])
    with pytest.raises(BadInput, match=r"unknown weights .*its sets: 'imagenet'"):
        training_classifier(nothing, 3, starting_weights(nothing))


def test_a_frozen_network_is_the_same_to_look_at():
    plain, frozen = (training_classifier(freezing(layers), 3) for layers in ("[]", "[stem]"))
    assert [v.shape for v in plain.weights] == [v.shape for v in frozen.weights]
    trained = {v.path for v in plain.trainable_variables} - {
        v.path for v in frozen.trainable_variables
    }
    assert trained == {"stem_conv/kernel", "stem_bn/gamma", "stem_bn/beta"}
