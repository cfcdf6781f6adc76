"""What a run tells while it trains: history, lines for programs, TensorBoard."""

import csv
import itertools
import json
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from pipelines.data.streams import open_dataset, training_stream
from pipelines.training import loop
from pipelines.training.board import MAX_IMAGES
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
    "--weight_histograms=true",
]


class Killed(Exception):
    """Stands for a process that ends between two steps."""


@pytest.fixture
def clock(monkeypatch):
    """A second goes by whenever the loop looks: before and after it waits, and after a step."""
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


def rows_of(run):
    with (run / "history.csv").open() as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def board_of(run, writer="."):
    return EventAccumulator(str(run / "tensorboard" / writer)).Reload()


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
    rows = rows_of(killed_run.run)
    epochs = [line for line in lines if line.pop("kind") == "epoch" and line.pop("step")]
    assert epochs == rows
    # Of the three seconds from one step to the next, one is spent waiting for the batch.
    assert all(line["input_wait_share"] == 1 / 3 for line in lines)
    assert all(line["images_per_s"] == 32 / 3 for line in lines)
    assert [row["training_s"] for row in rows] == [30, 30]
    board = board_of(killed_run.run, "train")
    kernel = "stage1_conv/kernel/histogram"
    (tag,) = [tag for tag in board.Tags()["tensors"] if tag.endswith(kernel)]
    assert [event.step for event in board.Tensors(tag)] == [0, 1]


@pytest.mark.parametrize(
    ("writer", "tag", "column"),
    [
        ("train", "epoch_images_per_s", "images_per_s"),
        ("train", "epoch_input_wait_share", "input_wait_share"),
        ("train", "epoch_learning_rate", "learning_rate"),
        ("train", "epoch_loss", "loss"),
        ("validation", "epoch_top1", "val_top1"),
    ],
)
def test_tensorboard_draws_the_history(run, writer, tag, column):
    drawn = [tf.make_ndarray(event.tensor_proto) for event in board_of(run, writer).Tensors(tag)]
    np.testing.assert_allclose(drawn, [row[column] for row in rows_of(run)], rtol=1e-6)


def test_tensorboard_shows_the_first_images_the_graph_and_the_hyperparameters(run, digits):
    board, config = board_of(run), digits_config(digits, run, "--epochs=3")
    (event,) = board.Tensors("first_batch")
    width, height, *encoded = tf.make_ndarray(event.tensor_proto)
    assert (int(width), int(height)) == (32, 32)
    images, _ = next(iter(training_stream(open_dataset(digits), config, first_epoch=0)))
    shown = [tf.io.decode_png(image) for image in encoded]
    np.testing.assert_array_equal(shown, images[:MAX_IMAGES])
    operations = Counter(node.op for node in board.Graph().node)
    assert [operations[name] for name in ("Conv2D", "MaxPool", "MatMul")] == [2, 2, 2]
    content = board.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    told = metadata.parse_session_start_info_plugin_data(content).hparams
    assert told["network"].string_value == "simple_cnn"
    assert told["optimizer.base_lr"].number_value == 0.4
    assert told["augment.horizontal_flip"].bool_value is False
    assert told["input.mean"].string_value == str(list(config.input.mean))


def test_what_a_log_lacks_of_the_history_is_added_and_what_is_done_again_goes(tmp_path):
    file = tmp_path / "log.jsonl"
    kept = {"kind": "step", "step": 3, "epoch": 1}
    again = {"kind": "step", "step": 6, "epoch": 2}
    file.write_text(f'null\n{{"kind": "step"}}\n{json.dumps(kept)}\n{json.dumps(again)}\n{{"ki')
    StepLog(file, steps_per_epoch=5).go_on([{"epoch": 1, "val_top1": 0.5}], step=0)
    added = {"kind": "epoch", "step": 5, "epoch": 1, "val_top1": 0.5}
    assert [json.loads(line) for line in file.read_text().splitlines()] == [kept, added]


def test_the_pace_is_told_about_once_a_second_over_the_steps_since():
    pace = Pace(batch_size=8)
    assert [pace.after(0.25, 0.125) for _ in range(3)] == [{}] * 3
    assert pace.after(0.25, 0.125) == {"images_per_s": 32.0, "input_wait_share": 0.5}
    assert pace.after(0.5, 0.5) == {}
    assert pace.after(1.5, 0.5) == {"images_per_s": 8.0, "input_wait_share": 0.5}
