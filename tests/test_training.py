"""A run: what it learns, what it leaves behind, and how it goes on."""

import csv
import dataclasses
import json
import re
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_zoo
from pipelines.atomic import locked
from pipelines.command import dump, load, parse, refuse_another
from pipelines.config import PrepareConfig, TrainConfig
from pipelines.data.preparation import prepare
from pipelines.data.streams import num_images, open_dataset
from pipelines.errors import BadInput, Failed
from pipelines.training.run import Run
from pipelines.training.train import train
from tests.conftest import digits_config
from tests.photographs import photograph


def weights(folder):
    return [keras.ops.convert_to_numpy(v) for v in Run.open(folder).classifier().weights]


def test_three_epochs_on_the_digits_pass_95_per_cent(run):
    metrics = Run.open(run).metrics()
    assert metrics["top1"] >= 0.95
    assert metrics["parameters"] == 315_146


def test_a_run_holds_what_repeats_and_explains_it(run, digits):
    assert load(TrainConfig, run / "config.yaml") == digits_config(digits, run, "--epochs", "3")
    environment = json.loads((run / "environment.json").read_text())
    assert {"tensorflow", "keras", "commit", "processor", "cores"} <= set(environment)
    with (run / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["epoch"]) for row in rows] == [1, 2, 3]
    assert float(rows[-1]["val_top1"]) == Run.open(run).metrics()["top1"]
    assert list(run.glob("tensorboard/*/events.*"))
    best = max(rows, key=lambda row: float(row["val_top1"]))
    kept = {f"epoch_000{number}" for number in (2, 3, int(float(best["epoch"])))}
    assert {folder.name for folder in (run / "checkpoints").iterdir()} == kept


def test_a_finished_run_is_not_trained_again(run, digits):
    before = Run.open(run).metrics()
    assert train(digits_config(digits, run, "--epochs", "3")).top1 == before["top1"]
    assert Run.open(run).metrics()["training_s"] == before["training_s"]


def test_a_run_that_goes_on_ends_like_one_that_was_never_stopped(run, digits, tmp_path):
    """Its last epoch's checkpoint is taken away, as if it had been killed before writing it."""
    folder = tmp_path / "stopped"
    shutil.copytree(run, folder)
    for file in ("config.yaml", "metrics.json"):
        (folder / file).unlink()
    shutil.rmtree(folder / "checkpoints" / "epoch_0003")
    train(digits_config(digits, folder, "--epochs", "3"))
    for ours, uninterrupted in zip(weights(folder), weights(run), strict=True):
        np.testing.assert_array_equal(ours, uninterrupted)


def test_another_config_is_refused_with_what_differs(run, digits):
    before = (run / "config.yaml").read_text()
    with pytest.raises(BadInput, match=r"optimizer\.base_lr differ; .*: 0\.4 there, 0\.1 here"):
        train(digits_config(digits, run, "--epochs", "3", "--optimizer.base_lr", "0.1"))
    assert (run / "config.yaml").read_text() == before


@pytest.mark.parametrize("text", ["{", "scalar", "\0", ""])
def test_a_config_that_cannot_be_read_is_named(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(BadInput, match=r"config\.yaml' is no config any more; choose another"):
        refuse_another(tmp_path / "config.yaml", parse(TrainConfig, ["data"]), set())


@pytest.mark.parametrize("file", ["model.weights.h5", "state.npz"])
def test_a_corrupt_checkpoint_is_set_aside_for_the_one_before(run, digits, tmp_path, file, capsys):
    folder = tmp_path / "run"
    config = digits_config(digits, folder, "--epochs", "3")
    shutil.copytree(run, folder)
    (folder / "config.yaml").unlink()
    newest = folder / "checkpoints" / "epoch_0003"
    damaged = bytearray((newest / file).read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (newest / file).write_bytes(damaged)
    assert train(config).epochs == 3
    told = rf"corrupt checkpoint '.*epoch_0003': .*{file}.*; it is 'corrupt-epoch_0003' now"
    assert re.search(told, capsys.readouterr().err)
    for ours, uninterrupted in zip(weights(folder), weights(run), strict=True):
        np.testing.assert_array_equal(ours, uninterrupted)
    for checkpoint in folder.glob("checkpoints/epoch_*"):
        if checkpoint != newest:
            shutil.rmtree(checkpoint)
    (newest / file).write_bytes(damaged)
    with pytest.raises(BadInput, match=f"corrupt checkpoint .*epoch_0003.*{file}"):
        train(config)


HASHES = '"sha256": {"model.weights.h5": "", "state.npz": ""}'


@pytest.mark.parametrize(
    "record",
    ["", "{}", "null", '{"sha256": 1', f'{{{HASHES}, "a": 1}}', f'{{{HASHES}, "history": null}}'],
)
def test_a_corrupt_record_of_a_checkpoint_is_named(run, digits, tmp_path, record):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    (folder / "checkpoints" / "epoch_0003" / "record.json").write_text(record)
    with pytest.raises(BadInput, match="corrupt checkpoint"):
        Run.open(folder).classifier()


def test_data_of_other_classes_is_refused_and_the_run_stays_whole(run, tmp_path):
    for number, name in enumerate("ab"):
        photograph(tmp_path / "source" / "train" / name / "0.JPEG", seed=number)
        photograph(tmp_path / "source" / "val" / name / "0.JPEG", seed=number + 2)
    prepare(PrepareConfig(str(tmp_path / "source"), tmp_path / "data"))
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    config = digits_config(tmp_path / "data", folder, "--epochs", "3", "--global_batch_size", "2")
    (folder / "config.yaml").write_text(dump(config))
    with pytest.raises(BadInput, match=r"class 0 is 'a' there and '0' here"):
        train(config)
    assert Run.open(folder).class_names() == [str(digit) for digit in range(10)]


def test_a_run_goes_on_with_its_data_elsewhere_and_with_no_other(run, digits, tmp_path):
    folder, moved = tmp_path / "run", tmp_path / "moved"
    shutil.copytree(run, folder)
    shutil.copytree(digits, moved)
    config = digits_config(moved, folder, "--epochs", "3")
    assert Run.start(config, open_dataset(moved)).config().data == moved
    info = json.loads((moved / "dataset_info.json").read_text())
    train_split, validation = info["splits"]
    counts = [int(split["shardLengths"][0]) for split in info["splits"]]
    train_split["shardLengths"], validation["shardLengths"] = [counts[0] - 9], [counts[1] + 9]
    (moved / "dataset_info.json").write_text(json.dumps(info))
    told = f"train has {counts[0] - 9} images, .* there and {counts[0]} images, .* in the run"
    with pytest.raises(BadInput, match=told):
        Run.start(config, open_dataset(moved))


def test_a_run_under_way_is_left_alone(run, digits):
    with locked(run), pytest.raises(BadInput, match="in use by another process"):
        train(digits_config(digits, run, "--epochs", "3"))


def test_a_batch_larger_than_the_split_is_refused(digits, tmp_path):
    config = digits_config(digits, tmp_path / "run", "--global_batch_size", "5000")
    total = num_images(open_dataset(digits), "train")
    with pytest.raises(BadInput, match=f"more than the {total} images"):
        train(config)
    assert not (tmp_path / "run").exists()


def test_a_damaged_file_of_the_data_is_told_in_one_line(digits, tmp_path):
    shutil.copytree(digits, tmp_path / "data")
    shard = next((tmp_path / "data").glob("*-train.tfrecord-*"))
    shard.write_bytes(shard.read_bytes()[:-1000])
    with pytest.raises(Failed, match=r"^truncated record at \d+[^\n{[]*; .*prepare them anew; "):
        train(digits_config(tmp_path / "data", tmp_path / "run"))


@pytest.mark.parametrize(
    ("error", "message", "told"),
    [
        (
            tf.errors.ResourceExhaustedError,
            "Graph execution error:\n\nDetected at node MatMul\n\nOOM when allocating tensor with "
            "shape[6,6]\n\t [[{{node MatMul}}]]\nHint: none\n [Op:__inference_f_29]",
            r"^OOM when allocating tensor with shape\[6,6\]; where memory ran out, raise acc",
        ),
        (
            tf.errors.UnavailableError,
            "Connection refused",
            "^Connection refused; .* tf.data service",
        ),
    ],
)
def test_what_tensorflow_cannot_do_is_told_in_one_line(
    digits, tmp_path, monkeypatch, error, message, told
):
    def fail(*_):
        raise error(None, None, message)

    monkeypatch.setattr("pipelines.training.train._train", fail)
    with pytest.raises(Failed, match=told):
        train(digits_config(digits, tmp_path / "run"))


def test_a_loss_that_diverges_ends_the_run_with_what_to_change(digits, tmp_path):
    config = digits_config(digits, tmp_path / "run", "--optimizer.base_lr", "1e30")
    with pytest.raises(
        Failed, match=r"not finite at step \d+ of epoch 1: .*layer.*; lower optimizer\.base_lr"
    ):
        train(config)
    assert not list(tmp_path.glob("run/checkpoints/*"))


def test_a_run_begins_from_the_weights_of_a_file(digits, tmp_path):
    network = keras_zoo.build("simple_cnn")
    network.save_weights(tmp_path / "start.weights.h5")
    start = ["--init", str(tmp_path / "start.weights.h5")]
    config = digits_config(digits, tmp_path / "run", *start)
    frozen = dataclasses.replace(
        config,
        stop_after_epochs=1,
        optimizer=dataclasses.replace(config.optimizer, base_lr=1e-12, weight_decay=0.0),
    )
    train(frozen)
    for ours, theirs in zip(weights(frozen.run), network.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_weights_of_another_network_are_refused(digits, tmp_path):
    keras_zoo.build("resnet18", num_classes=10).save_weights(tmp_path / "other.weights.h5")
    other = ["--init", str(tmp_path / "other.weights.h5")]
    with pytest.raises(BadInput, match="weights"):
        train(digits_config(digits, tmp_path / "run", *other))
    assert not (tmp_path / "run").exists()


def test_a_run_may_stop_early_and_go_on_with_the_same_schedule(run, digits, tmp_path):
    folder = tmp_path / "run"
    config = digits_config(digits, folder, "--epochs", "3")
    assert train(dataclasses.replace(config, stop_after_epochs=1)).epochs == 1
    assert train(config).epochs == 3
    for ours, uninterrupted in zip(weights(folder), weights(run), strict=True):
        np.testing.assert_array_equal(ours, uninterrupted)


def test_two_devices_train_one_run(digits, tmp_path):
    """In a process of its own: logical devices are set before TensorFlow starts."""
    script = (
        "import sys, json, tensorflow as tf\n"
        "from pathlib import Path\n"
        "from tests.conftest import digits_config\n"
        "from pipelines.training.strategy import choose_distribution\n"
        "from pipelines.training.train import train\n"
        "from pipelines.evaluation.evaluate import evaluate\n"
        "from pipelines.config import EvaluateConfig\n"
        "cpu = tf.config.list_physical_devices('CPU')[0]\n"
        "halves = [tf.config.LogicalDeviceConfiguration()] * 2\n"
        "tf.config.set_logical_device_configuration(cpu, halves)\n"
        "data, run = map(Path, sys.argv[1:])\n"
        "assert choose_distribution(digits_config(data, run)).replicas == 2\n"
        "trained = train(digits_config(data, run, '--epochs', '2'))\n"
        "measured = evaluate(EvaluateConfig(run, batch_size=7))\n"
        "print(json.dumps([trained.top1, trained.n, measured.top1, measured.n]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, digits, tmp_path / "run"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    top1, n, measured_top1, measured_n = json.loads(done.stdout)
    assert top1 >= 0.9
    assert (top1, n) == (measured_top1, measured_n)
