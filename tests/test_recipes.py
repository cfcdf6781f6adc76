"""The recipes: each parses, builds and trains; and the page that holds them against the papers."""

import dataclasses
import gc
import importlib.util
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_zoo import card, list_models
from pipelines.command import RECIPES, parse
from pipelines.config import EvaluateConfig, TrainConfig
from pipelines.errors import BadInput
from pipelines.evaluation.evaluate import evaluate
from pipelines.training.model import at_size
from pipelines.training.run import Run
from pipelines.training.state import State
from pipelines.training.step import TrainingStep
from pipelines.training.train import train
from tests.conftest import numbered_config

DOCS = Path(__file__).parents[1] / "docs"
NAMES = sorted(file.stem for file in RECIPES.glob("*.*.yaml"))
# What is quick to compile has every loss, two of the optimizers, and a size of its own to train at.
SLOW = ("resnet", "resnext", "seresnet", "wide_resnet", "inception", "googlenet_bn")


@pytest.fixture
def networks_let_go():
    """Compiled steps are cycles of references, too few to be collected for their number alone."""
    yield
    gc.collect()


def recipe(name, *overrides):
    return parse(TrainConfig, ["d", "--recipe", name, *overrides])


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_of_the_network_in_its_name_and_tells_what_to_expect(name):
    network, kind = name.split(".")
    assert recipe(name).network == network
    header = [
        line for line in (RECIPES / f"{name}.yaml").read_text().split("\n") if line[:1] == "#"
    ]
    assert f"--recipe {name}" in header[1]
    if kind != "demo":
        assert [line.split(":")[0] for line in header[2:]].count("# Expected top-1") == 1
        assert [line.split(":")[0] for line in header[2:]].count("# Hours") == 1


def test_every_family_has_a_recipe_of_its_paper_and_a_modern_one():
    families = {card(name).family for name in list_models() if card(name).paper}
    for kind in ("paper", "modern"):
        assert {card(n.split(".")[0]).family for n in NAMES if n.endswith(kind)} == families


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(".paper")])
def test_a_papers_decay_is_coupled_and_its_classes_compete(name):
    config = recipe(name)
    assert config.optimizer.l2 > 0 == config.optimizer.weight_decay
    assert (config.loss, config.augment.mixes) == ("softmax", False)


@pytest.mark.usefixtures("networks_let_go")
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n.startswith(SLOW) else n for n in NAMES]
)
def test_a_recipe_trains_two_steps(name):
    """At about the smallest size that the network takes, two images a step."""
    given = recipe(name)
    network = card(given.network)
    heads = network.aux_heads if given.aux_weights else None
    size_px = max(32, (heads or network).min_size_px)
    augment = dataclasses.replace(
        given.augment, size_px=given.augment.size_px and size_px, first_size_px=None
    )
    evaluated_px = size_px + 32 if augment.size_px else size_px
    spec = dataclasses.replace(given.input, size_px=evaluated_px)
    config = dataclasses.replace(given, input=spec, augment=augment, global_batch_size=2)
    keras.utils.set_random_seed(0)
    state = State(config, 4, None, steps_per_epoch=2)
    model = at_size(state.model, config, size_px, 4) if augment.size_px else state.model
    step = TrainingStep(state, config, {size_px: model})
    before = [variable.numpy() for variable in state.model.trainable_variables]
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (2, size_px, size_px, spec.num_channels), np.uint8)
    for _ in range(2):
        totals = step(tf.constant(images), tf.one_hot([0, 3], 4), stop=False)
        assert np.isfinite(totals).all()
    changed = [
        not np.array_equal(old, variable.numpy())
        for old, variable in zip(before, state.model.trainable_variables, strict=True)
    ]
    assert np.mean(changed) > 0.5


def test_a_size_to_train_at_is_refused_where_weights_depend_on_it():
    config = recipe("alexnet.modern", "--augment.size_px", "160")
    state = State(config, 4, None, steps_per_epoch=2)
    with pytest.raises(BadInput, match=r"alexnet has a dense layer \(fc1\).*leave out augment"):
        at_size(state.model, config, 160, 4)


@pytest.mark.slow
def test_a_network_trained_small_and_with_auxiliary_heads_is_evaluated_as_it_is(numbered, tmp_path):
    heads = ["--network", "googlenet_bn", "--aux_weights", "[0.3, 0.3]", "--ema_momentum", "0.5"]
    sizes = ["--input.size_px", "64", "--augment.size_px", "32", "--epochs", "2"]
    config = numbered_config(numbered, *heads, *sizes, "--run", str(tmp_path / "run"))
    trained = train(config)
    assert Run.open(config.run).classifier().output.shape == (None, 10)
    measured = evaluate(EvaluateConfig(config.run, batch_size=100))
    assert (measured.top1, measured.n) == (trained.top1, 257)


def test_what_stands_after_a_recipe_wins_over_it():
    config = recipe("resnet50.modern", "--network", "resnet18", "--optimizer.base_lr", "0.005")
    assert (config.network, config.optimizer.base_lr) == ("resnet18", 0.005)
    assert (config.optimizer.name, config.size_px(0), config.input.size_px) == ("lamb", 160, 224)


def test_a_file_may_lie_over_a_recipe(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("recipe: resnet50.paper\nnetwork: resnet34\noptimizer: {base_lr: 0.2}\n")
    config = parse(TrainConfig, ["d", "--config", str(file)])
    assert (config.network, config.optimizer.base_lr) == ("resnet34", 0.2)
    assert (config.optimizer.l2, config.schedule.step_epochs) == (1e-4, (30, 60, 90))


def test_an_unknown_recipe_is_answered_with_the_nearest(tmp_path):
    with pytest.raises(BadInput, match=r"unknown recipe 'resnet5.modern'.*'resnet50.modern'"):
        recipe("resnet5.modern")
    (tmp_path / "mine.yaml").write_text("recipe: resnet50.papers")
    with pytest.raises(BadInput, match=r"unknown recipe .*'resnet50.paper'"):
        parse(TrainConfig, ["d", "--config", str(tmp_path / "mine.yaml")])


def test_the_page_about_the_papers_is_what_the_recipes_say():
    spec = importlib.util.spec_from_file_location("recipes", DOCS / "recipes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (DOCS / "recipes.md").read_text() == module.page()
