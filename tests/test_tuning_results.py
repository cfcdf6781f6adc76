"""What a search has come to, read from its folder in whatever state it is."""

import csv
import dataclasses
import itertools
import json
import subprocess
import sys
from pathlib import Path

import keras_tuner
import numpy as np
import pytest
import yaml
from keras_tuner.engine.trial import Trial
from PIL import Image

from pipelines.command import RECIPES, dump, flat, parse
from pipelines.config import PrepareConfig, TrainConfig
from pipelines.data.preparation import prepare
from pipelines.errors import BadInput, Failed, Stopped
from pipelines.training import children
from tests.conftest import RECIPE
from tests.photographs import read
from tuning.config import ResultsConfig, SearchConfig
from tuning.importance import MIN_TRIALS, importances
from tuning.plots import parallel_coordinates, top1_over_epochs
from tuning.records import read_records
from tuning.report import report
from tuning.space import read_space
from tuning.stages import RECORD, go_on

SPACES = Path(__file__).parents[1] / "tuning" / "spaces"
LR, NAME, RHO = "optimizer.base_lr", "optimizer.name", "optimizer.rho"


class Writer:
    """Writes a search's folder, the trials with keras-tuner's own classes.

    Args:
        folder: to write.
        epochs: of the config that is tuned.
    """

    def __init__(self, folder, epochs):
        self.folder = folder
        self._ended = []
        folder.mkdir()
        train = parse(TrainConfig, ["data", "--config", str(RECIPE), f"--epochs={epochs}"])
        config = SearchConfig(train.data, train, tuner="hyperband", search=folder)
        (folder / "search.yaml").write_text(dump(config))

    def add(self, name, status, history=(), message=None, **values):
        """A trial with an accuracy for each epoch of its history."""
        chosen = keras_tuner.HyperParameters()
        chosen.Float(LR, 0.01, 1.0, sampling="log")
        chosen.Choice(NAME, ["sgd", "rmsprop", "lamb"])
        with chosen.conditional_scope(NAME, ["rmsprop"]):
            chosen.Float(RHO, 0.8, 1.0)
        chosen.values = {key.replace("__", "/"): value for key, value in values.items()}
        trial = Trial(chosen, trial_id=name, status=status, message=message)
        trial.score = history[-1] if status == "COMPLETED" else None
        run = self.folder / f"trial_{name}" / "run"
        run.mkdir(parents=True)
        trial.save(str(run.with_name("trial.json")))
        rows = [f"{epoch},{top1},100.0" for epoch, top1 in enumerate(history, start=1)]
        if rows:
            (run / "history.csv").write_text("\n".join(["epoch,val_top1,val_n", *rows]) + "\n")
        if status != "RUNNING":
            self._ended.append(name)
        (self.folder / "oracle.json").write_text(json.dumps({"end_order": self._ended}))


@pytest.fixture
def hyperband(tmp_path):
    """Short trials and long ones, one that goes on from another, and all that can go wrong."""
    search = Writer(tmp_path / "s", epochs=9)
    start = {"tuner__epochs": 3, "tuner__initial_epoch": 0}
    promoted = {"tuner__epochs": 9, "tuner__initial_epoch": 3}
    search.add("00", "COMPLETED", [0.1, 0.2, 0.9], **start | {LR: 0.1, NAME: "sgd"})
    search.add("02", "FAILED", [0.1], "no memory", **start)
    search.add("01", "COMPLETED", [0.1, 0.2, 0.3], **start | {LR: 1.0, NAME: "sgd"})
    nine = [0.1, 0.2, 0.9, 0.9, 0.9, 0.8, 0.8, 0.8, 0.8]
    going_on = promoted | {"tuner__trial_id": "00", LR: 0.1, NAME: "sgd"}
    search.add("03", "COMPLETED", nine, **going_on)
    own = {"tuner__epochs": 9, "tuner__initial_epoch": 0, LR: 0.01, NAME: "rmsprop", RHO: 0.9}
    search.add("04", "COMPLETED", [0.2] * 9, **own)
    search.add("05", "RUNNING", [0.4, 0.5], **start | {LR: 0.2, NAME: "lamb"})
    search.add("06", "RUNNING", **start)
    (search.folder / "trial_06" / "trial.json").write_text('{"trial_id": "06", "hyp')
    return search.folder


def test_a_long_trial_is_never_outranked_by_a_short_one(hyperband):
    results = report(ResultsConfig(hyperband))
    assert [trial.name for trial in results.ranking] == ["03", "04", "00", "01"]
    assert (results.best.name, results.best.top1, results.best.n) == ("03", 0.8, 100)
    assert "best of those with all 9 epochs: trial 03, top-1 0.8000 on minival, n = 100" in str(
        results
    )
    assert [row.split()[:5] for row in str(results).splitlines()[2:4]] == [
        ["1", "03", "0.8000", "9", "of"],
        ["2", "04", "0.2000", "9", "of"],
    ]


def test_what_did_not_complete_is_told_with_its_reason(hyperband):
    results = report(ResultsConfig(hyperband))
    assert "4 completed, 1 failed, 1 unfinished" in str(results)
    assert "failed: 02: no memory\n" in str(results)
    assert "unfinished: 05: 2 of 3 epochs, top-1 0.5000 so far\n" in str(results)


def test_epochs_that_a_trial_took_over_count_once(hyperband):
    budget = report(ResultsConfig(hyperband)).budget
    assert budget.trained == 3 + 1 + 3 + (9 - 3) + 9 + 2
    assert budget.without_continuation == 3 + 1 + 3 + 9 + 9 + 2


def test_epochs_that_were_trained_again_count_again(hyperband):
    history = hyperband / "trial_00" / "run" / "history.csv"
    history.write_text(history.read_text().replace("0.9", "0.91"))
    budget = report(ResultsConfig(hyperband)).budget
    assert budget.trained == budget.without_continuation == 27


def test_the_files_hold_every_trial_and_the_page_loads_nothing(hyperband):
    results = report(ResultsConfig(hyperband))
    with (hyperband / "results" / "leaderboard.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["trial"] for row in rows] == ["03", "04", "00", "01", "02", "05"]
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4", "", ""]
    assert (rows[1][RHO], rows[0][RHO], rows[4]["reason"]) == ("0.9", "", "no memory")
    page = Path(results.page).read_text()
    assert page.count("data:image/png;base64,") == 4
    assert "http" not in page
    assert "<td>0.8000</td><td>9 of 9</td><td>00</td>" in page
    for name in ("parallel_coordinates.png", "top1_over_epochs.png"):
        with Image.open(hyperband / "results" / name) as picture:
            assert picture.width > 500


def test_a_search_without_a_completed_trial_has_results_too(tmp_path):
    search = Writer(tmp_path / "s", epochs=9)
    assert "trials: none yet" in str(report(ResultsConfig(search.folder)))
    search.add("00", "RUNNING", [0.5])
    text = str(report(ResultsConfig(search.folder)))
    assert "unfinished: 00: 1 of 9 epochs" in text
    assert "no trial has completed all 9 epochs yet" in text
    assert f"fewer than {MIN_TRIALS} completed trials" in text


def test_a_line_crosses_each_axis_where_the_value_lies_in_its_range(hyperband):
    axes = parallel_coordinates(read_records(hyperband)).axes[0]
    lines = {tuple(np.round(line.get_ydata(), 6)): line for line in axes.lines}
    absent = min(min(places) for places in lines)
    assert set(lines) == {
        (0.5, 0, absent, 1),  # 0.1 is halfway from 0.01 to 1, in ratios
        (1, 0, absent, round(0.1 / 0.7, 6)),
        (0.5, 0, absent, round(0.6 / 0.7, 6)),
        (0, 0.5, 0.5, 0),
    }
    assert absent < 0
    dashed = [places for places, line in lines.items() if line.get_linestyle() != "-"]
    assert set(dashed) == {(0.5, 0, absent, 1), (1, 0, absent, round(0.1 / 0.7, 6))}


def test_the_best_so_far_rises_where_a_trial_of_all_epochs_ended(tmp_path):
    search = Writer(tmp_path / "s", epochs=2)
    found = [0.5, 0.4, 0.7, 0.6]
    for number, top1 in enumerate(found):
        search.add(f"{number}", "COMPLETED", [0.1, top1], **{LR: 0.1, NAME: "sgd"})
    lines = {
        line.get_label(): line
        for line in top1_over_epochs(read_records(search.folder)).axes[0].lines
    }
    assert list(lines["best of those"].get_ydata()) == [0.5, 0.5, 0.7, 0.7, 0.7]
    assert list(lines["best of those"].get_xdata()) == [2, 4, 6, 8, 8]
    assert list(lines["2 epochs"].get_ydata()) == found


def many(folder, top1_of, trials=200):
    """A search whose trials' accuracies are a function of learning rate and rho."""
    search = Writer(folder, epochs=2)
    draw = np.random.default_rng(0)
    for number in range(trials):
        lr, rho = draw.uniform(size=2)
        values = {LR: 0.01 + 0.99 * lr, NAME: "rmsprop", RHO: 0.8 + 0.2 * rho}
        search.add(f"{number:03d}", "COMPLETED", [float(top1_of(lr, rho))], **values)
    return importances(read_records(search.folder))


def test_importances_are_the_shares_of_the_variance(tmp_path):
    """Of a sum of independent terms, shuffling one adds twice its variance to the squared error."""
    found = many(tmp_path / "s", lambda lr, rho: 0.6 * lr + 0.3 * rho)
    assert list(found.shares) == [LR, RHO]
    assert found.shares[LR] == pytest.approx(0.8, abs=0.05)
    assert sum(found.shares.values()) == pytest.approx(1)
    assert found.explained > 0.9
    assert "from 200 completed trials" in str(found)


def test_importances_of_noise_are_said_to_mean_nothing(tmp_path):
    draw = np.random.default_rng(1)
    found = many(tmp_path / "s", lambda lr, rho: draw.uniform(), trials=12)
    assert "from 12 completed trials" in str(found)
    assert "they mean nothing yet" in str(found)


def test_results_need_no_framework(hyperband):
    script = (
        "import runpy, sys; sys.argv = ['results', sys.argv[1]]\n"
        "try: runpy.run_module('tuning.results', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end: assert not end.code, end\n"
        "heavy = {'tensorflow', 'keras', 'keras_tuner'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, hyperband], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "trial 03" in done.stdout


def test_what_is_no_search_and_no_stage_is_refused(hyperband, tmp_path):
    with pytest.raises(BadInput, match=r"no search in .*tuning\.search makes one"):
        report(ResultsConfig(tmp_path))
    with pytest.raises(BadInput, match=r"no best\.yaml in"):
        report(ResultsConfig(hyperband, then="train"))
    with pytest.raises(BadInput, match="then has 'serve'; of train,evaluate,export"):
        parse(ResultsConfig, [str(hyperband), "--then", "train,serve"])
    assert ResultsConfig(hyperband, then="export,train").stages == ["train", "export"]


class Stages:
    """Has other processes run for the stages: what each is called with, and what it makes."""

    def __init__(self, ending="sys.exit(0)", stopped=()):
        self.called = []
        self.ending = ending
        self.stopped = stopped

    def bound(self, line):
        stage = line[2].rpartition(".")[2]
        self.called.append(stage)
        Path("runs/s-best").mkdir(parents=True, exist_ok=True)
        Path("saved_models/s-best/1").mkdir(parents=True, exist_ok=True)
        folders = dict.fromkeys(("run", "model"), "runs/s-best")
        made = {**folders, "saved_model": "saved_models/s-best/1", "top1": 0.5, "n": 10}
        printed = "" if stage in self.stopped else json.dumps(made)
        script = f"import os, sys, time; print({printed!r}, end=''); {self.ending}"
        return [sys.executable, "-S", "-c", script]


@pytest.fixture
def best(hyperband, tmp_path, monkeypatch):
    """The folder of a search that has its best config, in a place to work in."""
    config = parse(TrainConfig, ["data", "--config", str(RECIPE), "--run", "runs/s-best"])
    (hyperband / "best.yaml").write_text(dump(config))
    monkeypatch.chdir(tmp_path)
    return hyperband


ALL = ["train", "evaluate", "export"]


def test_a_stage_that_is_done_is_not_done_again(best, monkeypatch):
    stages = Stages()
    monkeypatch.setattr(children, "bound", stages.bound)
    assert list(go_on(best, ["train"])) == stages.called == ["train"]
    assert list(go_on(best, ALL)) == stages.called == ALL
    assert go_on(best, []) == go_on(best, ALL)
    assert stages.called == ALL
    Path("saved_models/s-best/1").rmdir()
    go_on(best, ALL)
    assert stages.called == [*ALL, "export"]


def test_a_stage_that_nobody_asked_for_is_not_missed(best, monkeypatch):
    stages = Stages()
    monkeypatch.setattr(children, "bound", stages.bound)
    for _ in range(2):
        go_on(best, ["train", "export"])
    assert stages.called == ["train", "export"]


def test_the_numbers_of_the_best_config_stand_together(best, monkeypatch):
    values = {"optimizer": {"base_lr": 0.1, "name": "sgd"}}
    (best / "best.yaml").write_text(
        yaml.safe_dump(yaml.safe_load((best / "best.yaml").read_text()) | values)
    )
    monkeypatch.setattr(children, "bound", Stages().bound)
    results = report(ResultsConfig(best, then=",".join(ALL)))
    assert results.source.name == "03"
    told = str(results).partition("best.yaml:\n")[2].splitlines()
    assert [line[line.index("top-1") :] for line in told[:3]] == [
        "top-1 0.8000 on minival, n = 100",
        "top-1 0.5000 on minival, n = 10",
        "top-1 0.5000 on validation, n = 10",
    ]
    assert told[3].endswith("saved_models/s-best/1")


def test_another_best_config_begins_anew(best, monkeypatch):
    stages = Stages()
    monkeypatch.setattr(children, "bound", stages.bound)
    go_on(best, ALL)
    with (best / "best.yaml").open("a") as file:
        file.write("seed: 1\n")
    assert go_on(best, []) == {}
    go_on(best, ["train"])
    assert stages.called == [*ALL, "train"]


def test_a_stage_that_failed_or_was_stopped_ends_the_way(best, monkeypatch):
    failing = Stages("sys.exit(1)")
    monkeypatch.setattr(children, "bound", failing.bound)
    with pytest.raises(Failed, match=r"pipelines\.train --config .* ended with status 1"):
        go_on(best, ALL)
    monkeypatch.setattr(children, "bound", Stages(stopped=["evaluate"]).bound)
    with pytest.raises(Stopped, match="evaluate was asked to stop"):
        go_on(best, ALL)
    assert list(json.loads((best / RECORD).read_text())["outcomes"]) == ["train"]
    # As Ctrl-C does, it asks this process alone.
    waiting = Stages("os.kill(os.getppid(), 2); time.sleep(60)", stopped=["evaluate"])
    monkeypatch.setattr(children, "bound", waiting.bound)
    with pytest.raises(Stopped, match="evaluate was asked to stop"):
        go_on(best, ALL)


@pytest.mark.slow
def test_a_search_ends_in_a_saved_model(command, tmp_path):
    prepare(PrepareConfig("digits", tmp_path / "digits", minival=0.1))
    told = "--recipe simple_cnn.demo --train.epochs 3 --tuner random --max_trials 2 --search s"
    told += " --space small_data"
    done = command("tuning.search", "digits", *told.split(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = command("tuning.results", "s", "--then", ",".join(ALL), "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    final = results["outcomes"]
    images = {split: read(tmp_path / "digits", split) for split in ("minival", "validation")}
    assert final["train"]["n"] == results["source"]["n"] == len(images["minival"])
    assert final["evaluate"]["split"] == "validation"
    assert final["evaluate"]["n"] == len(images["validation"])
    assert (tmp_path / final["export"]["saved_model"] / "saved_model.pb").is_file()
    again = command("tuning.results", "s", "--then", ",".join(ALL), cwd=tmp_path)
    assert "python -m pipelines" not in again.stderr
    assert "next: python -m pipelines.serve saved_models" in again.stdout


# Which recipes a space is for, of all.
MEANT = {
    "default": lambda config: True,
    "regularisation": lambda config: True,
    "small_data": lambda config: True,
    "augmentation": lambda config: config.input.num_channels == 3,
    "architecture": lambda config: not config.aux_weights,
}


def corners(name):
    """Values for all of a space's fields: the low ends, the high ends, and every choice."""
    lines = yaml.safe_load((SPACES / f"{name}.yaml").read_text())
    kept = {
        field: next(values for kind, values in line.items() if kind != "when")
        for field, line in lines.items()
    }
    for number in range(max(map(len, kept.values()))):
        yield {field: values[number % len(values)] for field, values in kept.items()}


def replaced(config, values):
    """A config with some fields, named with dots, replaced."""
    own = {field: value for field, value in values.items() if "." not in field}
    for part, group in itertools.groupby(
        sorted(values.keys() - own.keys()), lambda f: f.partition(".")[0]
    ):
        below = {field.partition(".")[2]: values[field] for field in group}
        own[part] = replaced(getattr(config, part), below)
    return dataclasses.replace(config, **own)


@pytest.fixture(scope="module")
def recipes():
    names = sorted(file.stem for file in RECIPES.glob("*.*.yaml"))
    return [parse(TrainConfig, ["d", "--recipe", name]) for name in names]


@pytest.mark.parametrize("name", MEANT)
def test_what_a_space_holds_is_taken_by_every_recipe_that_it_is_for(name, recipes):
    meant = [config for config in recipes if MEANT[name](config)]
    assert len(meant) > len(recipes) / 2
    for values in corners(name):
        options = [f"--{field}={value}" for field, value in values.items()]
        read = flat(parse(TrainConfig, ["d", "--recipe", "resnet50.modern", *options]))
        for config in meant:
            replaced(config, {field: read[field] for field in values})


def test_every_space_that_is_shipped_is_tried_and_read():
    names = [file.stem for file in SPACES.glob("*.yaml")]
    assert sorted(names) == sorted(MEANT)
    for name in names:
        assert read_space(name).declared().space
