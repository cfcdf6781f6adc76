"""Searches: from a space file to a config that trains."""

import dataclasses
import json

import pytest

from pipelines.command import dump, load, parse
from pipelines.config import TrainConfig
from pipelines.errors import BadInput
from tests.conftest import RECIPE
from tuning.config import SearchConfig
from tuning.space import read_space
from tuning.trials import search, with_values

SPACE = RECIPE.parents[2] / "tuning" / "spaces" / "digits.yaml"


@pytest.mark.parametrize(
    ("tuner", "trials"),
    [
        ("random", 2),
        pytest.param("random", 4, marks=pytest.mark.slow),
        pytest.param("hyperband", 4, marks=pytest.mark.slow),
    ],
)
def test_a_search_ends_in_a_config_that_trains(command, digits, tmp_path, tuner, trials):
    arguments = f"--search searches/digits --tuner {tuner} --max_trials {trials}".split()
    train = ["--train", RECIPE, "--train.data", digits, "--train.epochs", "3"]
    done = command("tuning.search", SPACE, *arguments, *train, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["completed"], found["failed"]) == (trials, 0)
    assert done.stderr.count("top-1") == trials
    best = load(TrainConfig, tmp_path / found["best_config"])
    assert best.optimizer.base_lr == found["best_values"]["optimizer.base_lr"]
    assert (best.train_split, best.validation_split) == ("train", "validation")
    assert (best.epochs, best.stop_after_epochs) == (3, None)
    for trial in (tmp_path / "searches" / "digits").glob("trial_*/train.yaml"):
        config = load(TrainConfig, trial)
        assert (config.train_split, config.validation_split) == ("train[:80%]", "train[80%:]")
    done = command("pipelines.train", "--config", found["best_config"], "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["top1"] > 0.5


def test_a_search_whose_trials_all_fail_says_why_and_ends_with_1(command, digits, tmp_path):
    (tmp_path / "space.yaml").write_text("global_batch_size: {choice: [50000]}\n")
    train = ["--train", RECIPE, "--train.data", digits]
    done = command("tuning.search", "space.yaml", "--search", "s", *train, cwd=tmp_path)
    assert done.returncode == 1
    assert "global_batch_size is 50000" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "s" / "best.yaml").exists()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("optimizer.base_lr: {log: [1, 2]}", "unknown kind 'log'"),
        ("optimizer.base_lr: {float: [2, 1]}", "two rising numbers"),
        ("optimizer.base_lr: {log_float: [0, 1]}", "starts above 0"),
        ("optimizer.base_lr: 3", "not one of"),
        ("seed: {choice: []}", "takes a list"),
        ("seed: {int: [1.5, 3]}", "does not take"),
        ("[1, 2]", "not a mapping"),
        ("a: [", "cannot read the space"),
    ],
)
def test_a_bad_space_is_refused(tmp_path, line, told):
    (tmp_path / "space.yaml").write_text(line)
    with pytest.raises(BadInput, match=told):
        read_space(tmp_path / "space.yaml")


def test_a_field_that_does_not_exist_is_refused_before_any_trial(digits, tmp_path):
    (tmp_path / "space.yaml").write_text("optimizer.base_rl: {float: [0.1, 1.0]}")
    train = parse(TrainConfig, ["--config", str(RECIPE), "--data", str(digits)])
    with pytest.raises(BadInput, match=r"did you mean 'optimizer\.base_lr'"):
        search(SearchConfig(tmp_path / "space.yaml", tmp_path / "search", train))
    assert not (tmp_path / "search").exists()


def test_a_search_goes_on_only_as_it_was_begun(digits, tmp_path):
    train = parse(TrainConfig, ["--config", str(RECIPE), "--data", str(digits)])
    config = SearchConfig(SPACE, tmp_path / "search", train)
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "search.yaml").write_text(dump(config))
    longer = dataclasses.replace(config, train=dataclasses.replace(train, epochs=20))
    with pytest.raises(BadInput, match=r"train\.epochs differ; train\.epochs: 10 there, 20 here"):
        search(longer)


def test_missing_data_is_told_before_any_trial(tmp_path):
    train = parse(TrainConfig, ["--config", str(RECIPE), "--data", str(tmp_path / "none")])
    with pytest.raises(BadInput, match="no prepared data set"):
        search(SearchConfig(SPACE, tmp_path / "search", train))
    assert not (tmp_path / "search").exists()


def test_values_replace_fields_and_leave_the_rest(digits):
    base = parse(TrainConfig, ["--config", str(RECIPE), "--data", str(digits)])
    changed = with_values(base, {"optimizer.base_lr": 0.01, "augment.crop_area": [0.5, 1.0]})
    assert changed.optimizer.base_lr == 0.01
    assert changed.augment.crop_area == (0.5, 1.0)
    assert with_values(changed, {"optimizer.base_lr": 0.4, "augment.crop_area": [0.7, 1.0]}) == base
