"""Nothing is lost: a run goes on where it was, whatever ended it."""

import dataclasses
import errno
import json
import os
import random
import re
import resource
import shlex
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import psutil
import pytest

from keras_zoo import registry
from pipelines.command import dump
from pipelines.errors import Failed
from pipelines.train import main
from pipelines.training.checkpoints import RECORD, STATE, Checkpoints
from pipelines.training.run import Run
from pipelines.training.schedules import learning_rate
from pipelines.training.step import Totals, TrainingStep
from pipelines.training.train import train
from tests.conftest import RECIPE, digits_config
from tests.isolation import isolated
from tests.training_scenario import SMALL_BN

# Dropout, batch normalisation, averaged weights and mixed images: all that has a state of its own.
STATEFUL = [
    "--network=small_bn",
    "--epochs=2",
    "--train_split=train[:320]",
    "--validation_split=validation[:100]",
    "--ema_momentum=0.9",
    "--accumulation_steps=2",
    "--augment.mixup_alpha=0.2",
    "--checkpoint_every_steps=4",
]


@pytest.fixture(autouse=True)
def _small_network(monkeypatch):
    small_bn = dataclasses.replace(SMALL_BN, dropout=0.5)
    monkeypatch.setitem(registry.CARDS, small_bn.name, small_bn)


def contents(folder):
    """All arrays of a run's newest checkpoint."""
    newest = Checkpoints(folder / "checkpoints").newest()
    with np.load(newest / STATE) as arrays:
        state = dict(arrays)
    model = Run.open(folder).classifier()
    return state | {w.path: keras.ops.convert_to_numpy(w) for w in model.weights}


def record(folder):
    newest = Checkpoints(folder / "checkpoints").newest()
    return json.loads((newest / RECORD).read_text())


def history(folder):
    return record(folder)["history"]


def names(run):
    """Of its checkpoints, those included that are being written."""
    return sorted(path.name for path in run.glob("checkpoints/*"))


def assert_identical(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def stopping_at(steps, monkeypatch):
    """Lets the process be asked to stop during these steps of its life."""
    original, done = TrainingStep.__call__, iter(range(1000))

    def step(self, images, labels, *, stop):
        if next(done) in steps:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, images, labels, stop=stop)

    monkeypatch.setattr(TrainingStep, "__call__", step)


def test_checkpoints_follow_each_other_by_number(tmp_path):
    order = ["epoch_9999", "epoch_10000", "epoch_10000_step_999999", "epoch_10000_step_1000000"]
    for name in order:
        (tmp_path / name).mkdir()
        assert Checkpoints(tmp_path).newest().name == name


def test_a_run_stopped_at_any_step_ends_with_the_same_bits(digits, tmp_path, monkeypatch, capsys):
    """Beside a checkpoint that was due anyway, in an evaluation, and in the middle of an epoch;
    from a folder in which another was killed as it wrote a checkpoint.
    """
    whole, stopped = (digits_config(digits, tmp_path / name, *STATEFUL) for name in "ab")
    train(whole)
    (tmp_path / "stopped.yaml").write_text(dump(stopped))
    (stopped.run / "checkpoints" / ".partial-epoch_0000_step_000001").mkdir(parents=True)
    stopping_at({2, 9, 12}, monkeypatch)
    for step, epoch in ((4, 1), (10, 1), (4, 2)):
        assert main(["--config", str(tmp_path / "stopped.yaml")]) == 0
        told = capsys.readouterr().err.splitlines()[-1]
        command = re.escape(f"python -m pipelines.train --config {stopped.run}/config.yaml goes on")
        assert re.search(rf"stopped after step {step} of epoch {epoch}; {command}$", told)
    assert train(stopped).epochs == 2
    assert_identical(contents(stopped.run), contents(whole.run))
    columns = ("loss", "top1", "val_top1", "val_loss", "learning_rate")
    ours, theirs = (
        [[row[column] for column in columns] for row in history(config.run)]
        for config in (stopped, whole)
    )
    assert ours == theirs
    best = max(history(whole.run), key=lambda row: row["val_top1"])["epoch"]
    newest = {"epoch_0001_step_000010", "epoch_0002"}
    for config in (stopped, whole):
        assert set(names(config.run)) == newest | {f"epoch_{int(best):04d}"}


def test_training_ends_when_it_no_longer_becomes_better(digits, tmp_path):
    frozen = ["--optimizer.base_lr=1e-12", "--early_stopping_epochs=2", "--train_split=train[:64]"]
    config = digits_config(digits, tmp_path / "run", *frozen)
    assert train(config).epochs == 3
    assert train(config).epochs == 3


def test_a_full_disk_leaves_the_checkpoint_before_as_it_was(digits, tmp_path, capsys, monkeypatch):
    """A file larger than the limit fails in the kernel, as on a disk without room.

    HDF5 is not to begin such a file: the process would end with a crash.
    """
    arguments = ["--network=simple_cnn", "--epochs=3", "--train_split=train[:320]"]
    config = digits_config(digits, tmp_path / "run", *arguments)
    train(dataclasses.replace(config, stop_after_epochs=1))
    before = contents(config.run)
    monkeypatch.setattr(keras.Model, "save_weights", None)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, limits[1]))
    try:
        with pytest.raises(Failed, match=r"\(File too large\); .*epoch_0001 is the newest"):
            train(config)
        with pytest.raises(Failed, match="epoch_0001 is the newest"):
            train(dataclasses.replace(config, on_disk_full="go_on"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert capsys.readouterr().err.count("training goes on") == 1
    assert Run.open(config.run).metrics() is None
    assert [path.name for path in (config.run / "checkpoints").iterdir()] == ["epoch_0001"]
    assert_identical(contents(config.run), before)


def test_a_run_that_diverges_goes_back_and_lowers_its_rate(digits, tmp_path, capsys, monkeypatch):
    """The loss of one step, the seventh, is made to be none."""
    config = digits_config(digits, tmp_path / "run", *STATEFUL, "--on_nan=rollback")
    original, done, remembered = TrainingStep.__call__, iter(range(1000)), []

    def step(self, images, labels, *, stop):
        totals = original(self, images, labels, stop=stop)
        number = next(done)
        if number == 7:
            remembered.append(record(config.run)["rollbacks"])
        return totals._replace(loss=float("nan")) if number == 6 else totals

    monkeypatch.setattr(TrainingStep, "__call__", step)
    assert train(config).epochs == 2
    assert remembered == [1]
    told = capsys.readouterr().err
    assert "the loss, nan, is not finite at step 7 of epoch 1" in told
    assert "back to" in told
    assert "epoch_0000_step_000004 at 0.1 times the learning rate" in told
    schedule = learning_rate(config, 10)
    rate = history(config.run)[0]["learning_rate"]
    assert rate == pytest.approx(0.1 * float(schedule(10)))


def test_without_a_checkpoint_there_is_no_going_back(digits, tmp_path, monkeypatch):
    config = digits_config(
        digits, tmp_path / "run", *STATEFUL, "--on_nan=rollback", "--on_disk_full=go_on"
    )

    def save(*_):
        raise OSError(errno.ENOSPC, "full")

    def diverge(*_, stop):
        return Totals(float("nan"), 0.0, 0.0, 0.0)

    monkeypatch.setattr(Checkpoints, "save", save)
    monkeypatch.setattr(TrainingStep, "__call__", diverge)
    with pytest.raises(Failed, match=r"step 1 of epoch 1.*there is no checkpoint to go back to"):
        train(config)


@pytest.mark.slow
def test_rolling_back_has_an_end(digits, tmp_path):
    config = digits_config(
        digits, tmp_path / "run", "--on_nan=rollback", "--optimizer.base_lr=1e30"
    )
    with pytest.raises(Failed, match="after 5 rollbacks"):
        train(config)


def start(*arguments, cwd=None, devices=1):
    """`pipelines.train` in a process of its own; returns once it trains."""
    script = (
        "import sys, tensorflow as tf\n"
        "from pipelines.train import main\n"
        "devices = int(sys.argv.pop(1))\n"
        "cpu = tf.config.list_physical_devices('CPU')[0]\n"
        "parts = [tf.config.LogicalDeviceConfiguration()] * devices\n"
        "tf.config.set_logical_device_configuration(cpu, parts)\n"
        "sys.exit(main())"
    )
    command = [sys.executable, "-c", script, str(devices), *map(str, arguments)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=cwd)
    for line in process.stderr:
        if re.search(r": \w+ at \d+ px", line):
            break
    return process


@pytest.mark.slow
def test_sigterm_ends_with_a_checkpoint_and_the_line_that_goes_on(digits, tmp_path):
    arguments = ["--config", RECIPE, "--data", digits, "--run", "run dir", "--epochs", "2000"]
    process = start(*arguments, cwd=tmp_path)
    time.sleep(3)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate()
    assert process.returncode == 0, told
    line = told.splitlines()[-1]
    assert re.match(
        r"run dir stopped after step \d+ of epoch \d+; python -m pipelines\.train", line
    )
    command = shlex.split(line.partition("; ")[2].removesuffix(" goes on"))
    newest = Checkpoints(tmp_path / "run dir" / "checkpoints").newest()
    epoch = int(newest.name.split("_")[1])
    command = [sys.executable, *command[1:], "--stop_after_epochs", str(epoch + 1), "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["epochs"] == epoch + 1
    assert f"goes on after epoch {epoch}, step" in done.stderr


KILLED = [
    "--network=resnet18",
    "--input.size_px=32",
    "--epochs=3",
    "--global_batch_size=32",
    "--schedule.warmup_epochs=1",
    "--optimizer.base_lr=0.1",
    "--ema_momentum=0.9",
    "--augment.mixup_alpha=0.2",
    "--checkpoint_every_steps=3",
]


@pytest.mark.slow
@pytest.mark.parametrize(("devices", "kills", "tolerance"), [(1, 10, 0), (2, 3, 1e-6)])
def test_a_run_killed_at_random_ends_with_the_same_weights(
    digits, tmp_path, devices, kills, tolerance
):
    """Of all moments: inside a step, inside a checkpoint, while it evaluates."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = start(digits, *KILLED, "--run", whole, devices=devices)
    begun_s = time.monotonic()
    process.communicate()
    assert process.returncode == 0
    trained_s = time.monotonic() - begun_s
    moments = random.Random(0)
    for _ in range(kills):
        before = names(killed)
        process = start(digits, *KILLED, "--run", killed, devices=devices)
        while names(killed) == before:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.08) * trained_s)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        # What each kill came amid shows with `pytest -s`.
        print(names(killed))
    start(digits, *KILLED, "--run", killed, devices=devices).communicate()
    expected, given = contents(whole), contents(killed)
    for name in expected:
        largest = np.abs(expected[name]).max()
        np.testing.assert_allclose(
            given[name], expected[name], rtol=0, atol=tolerance * largest, err_msg=name
        )


@pytest.mark.slow
def test_a_worker_that_is_killed_ends_the_other_and_both_go_on(digits, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    command = [sys.executable, "-m", "pipelines.train", digits, *KILLED, "--local_workers=2"]
    done = subprocess.run(isolated([*map(str, command), "--run", str(whole)]), capture_output=True)
    assert done.returncode == 0, done.stderr
    process = subprocess.Popen(
        isolated([*map(str, command), "--run", str(killed)]), stderr=subprocess.PIPE, text=True
    )
    for line in process.stderr:
        if "begins" in line:
            break
    while not list(killed.glob("checkpoints/epoch_*")):
        time.sleep(0.1)
    workers = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "TF_CONFIG" in child.environ()
    ]
    assert len(workers) == 2
    workers[1].kill()
    _, told = process.communicate()
    assert process.returncode == 1
    assert "failed: the workers' exit statuses are" in told
    assert not any(worker.is_running() for worker in workers)
    done = subprocess.run(isolated([*map(str, command), "--run", str(killed)]), capture_output=True)
    assert done.returncode == 0, done.stderr
    expected, given = contents(whole), contents(killed)
    for name in expected:
        largest = np.abs(expected[name]).max()
        np.testing.assert_allclose(
            given[name], expected[name], rtol=0, atol=1e-6 * largest, err_msg=name
        )
