"""What a run tells while it trains: history, lines for programs, TensorBoard."""

import csv
import itertools
import json
from types import SimpleNamespace

import pytest

from pipelines.training import loop
from pipelines.training.progress import Pace
from pipelines.training.step import TrainingStep
from pipelines.training.step_log import StepLog
from pipelines.training.train import train
from tests.conftest import digits_config

STEPS_PER_EPOCH = 10
SMALL = [
    "--epochs=2",
    "--train_split=train[:320]",
    "--validation_split=validation[:100]",
    "--checkpoint_every_steps=4",
]


class Killed(Exception):
    """Stands for a process that ends between two steps."""


@pytest.fixture
def clock(monkeypatch):
    """A second goes by whenever the loop looks: one of waiting, and one of computing, a step."""
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=itertools.count().__next__))


@pytest.fixture
def killed_run(digits, tmp_path, monkeypatch, clock):
    """A run that was killed after its fifteenth step, in the middle of a line."""
    config = digits_config(digits, tmp_path / "run", *SMALL)
    original, done = TrainingStep.__call__, itertools.count(1)

    def step(self, images, labels, *, stop):
        if next(done) == 16:
            raise Killed
        return original(self, images, labels, stop=stop)

    monkeypatch.setattr(TrainingStep, "__call__", step)
    with pytest.raises(Killed):
        train(config)
    monkeypatch.setattr(TrainingStep, "__call__", original)
    with (config.run / "log.jsonl").open("a") as file:
        file.write('{"kind": "step", "step": 16, "epo')
    return config


def lines_of(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_a_killed_run_goes_on_with_each_line_once(killed_run):
    """It goes on from the checkpoint after twelve steps."""
    train(killed_run)
    lines = lines_of(killed_run.run)
    first, second = range(1, STEPS_PER_EPOCH + 1), range(STEPS_PER_EPOCH + 1, 21)
    assert [(line["kind"], line["step"], line["epoch"]) for line in lines] == [
        *(("step", step, 1) for step in first),
        ("epoch", 10, 1),
        *(("step", step, 2) for step in second),
        ("epoch", 20, 2),
    ]
    with (killed_run.run / "history.csv").open() as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    epochs = [line for line in lines if line.pop("kind") == "epoch" and line.pop("step")]
    assert epochs == rows
    # Of the two seconds that a step takes on this clock, one is spent waiting for its batch.
    assert all(line["input_wait_share"] == 0.5 for line in lines)
    assert all(line["images_per_s"] == 32 / 2 for line in lines)
    assert [row["training_s"] for row in rows] == [20, 20]


def test_what_a_log_lacks_of_the_history_is_added_and_what_is_done_again_goes(tmp_path):
    file = tmp_path / "log.jsonl"
    kept = {"kind": "step", "step": 3, "epoch": 1}
    again = {"kind": "step", "step": 6, "epoch": 2}
    file.write_text(f"{json.dumps(kept)}\n{json.dumps(again)}\n")
    StepLog(file, steps_per_epoch=5).go_on([{"epoch": 1, "val_top1": 0.5}], step=0)
    added = {"kind": "epoch", "step": 5, "epoch": 1, "val_top1": 0.5}
    assert [json.loads(line) for line in file.read_text().splitlines()] == [kept, added]


def test_the_pace_is_told_about_once_a_second_over_the_steps_since():
    pace = Pace(batch_size=8)
    assert [pace.after(0.25, 0.125) for _ in range(3)] == [{}] * 3
    assert pace.after(0.25, 0.125) == {"images_per_s": 32.0, "input_wait_share": 0.5}
    assert pace.after(0.5, 0.5) == {}
    assert pace.after(1.5, 0.5) == {"images_per_s": 8.0, "input_wait_share": 0.5}
