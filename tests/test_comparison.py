"""Networks side by side, by one command."""

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from keras_zoo import card
from pipelines.command import load, parse
from pipelines.config import CompareConfig, TrainConfig
from pipelines.errors import BadInput

SIX = "simple_cnn,alexnet,vgg11_bn,googlenet_bn,inception_v3,resnet18"


def test_all_networks_get_one_budget():
    config = parse(CompareConfig, ["data/tiny", "--networks", SIX])
    runs = [config.of(name) for name in config.names]
    assert [run.network for run in runs] == SIX.split(",")
    assert {str(run.run) for run in runs} == {f"comparison/runs/{name}" for name in config.names}
    alike = {
        dataclasses.replace(run, network="resnet18", run=None, input=config.train.input)
        for run in runs
    }
    assert len(alike) == 1
    for run in runs:
        assert run.input.size_px == max(64, card(run.network).min_size_px)
        assert dataclasses.replace(run.input, size_px=64) == config.train.input


def test_a_recipe_and_fields_of_ones_own_replace_the_budget():
    arguments = ["data", "--networks", "vgg11, resnet18,vgg11", "--recipe", "simple_cnn.demo"]
    config = parse(CompareConfig, [*arguments, "--train.epochs", "2"])
    assert config.names == ["vgg11", "resnet18"]
    alone = parse(TrainConfig, ["data", "--recipe", "simple_cnn.demo", "--epochs", "2"])
    assert config.train == alone


@pytest.mark.parametrize(
    ("networks", "told"),
    [("resnet5,alexnet", "did you mean 'resnet50'"), ("", "unknown network ''")],
)
def test_a_network_that_there_is_not_is_told_before_anything_is_trained(networks, told):
    with pytest.raises(BadInput, match=told):
        parse(CompareConfig, ["data", "--networks", networks])


@pytest.mark.slow
def test_killed_again_and_again_it_goes_on_and_ends_with_the_page(digits, tmp_path):
    line = [sys.executable, "-m", "pipelines", "compare", str(digits)]
    line += ["--networks", "simple_cnn,resnet18", "--recipe", "simple_cnn.demo"]
    line += ["--train.epochs", "2", "--train.schedule.warmup_epochs", "0.5"]
    line += ["--train.train_split", "train[:20%]", "--train.optimizer.base_lr", "0.1"]
    out = tmp_path / "comparison"
    first, second = (out / "runs" / name for name in ("simple_cnn", "resnet18"))
    said = tmp_path / "stderr"
    for waited_for in (first / "checkpoints", first / "metrics.json", second / "checkpoints"):
        with said.open("w") as errors:
            process = subprocess.Popen(line, cwd=tmp_path, stderr=errors)
        while process.poll() is None and not waited_for.exists():
            time.sleep(0.02)
        assert process.poll() is None, said.read_text()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    trained = (first / "metrics.json").stat().st_mtime_ns
    done = subprocess.run([*line, "--json"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (first / "metrics.json").stat().st_mtime_ns == trained
    result = json.loads(done.stdout)
    assert list(result["evaluations"]) == ["simple_cnn", "resnet18"]
    for folder, evaluated in zip((first, second), result["evaluations"].values(), strict=True):
        assert json.loads((folder / "metrics.json").read_text())["top1"] == evaluated["top1"]
        assert len((folder / "history.csv").read_text().splitlines()) == 3
        assert load(TrainConfig, out / "configs" / f"{folder.name}.yaml").run == folder.relative_to(
            tmp_path
        )
        assert (out / "saved_models" / folder.name / "1" / "saved_model.pb").is_file()
    with (out / "results" / "infer.csv").open(newline="") as file:
        assert [row["network"] for row in csv.DictReader(file)] == ["simple_cnn", "resnet18"]
    page = (tmp_path / result["page"]).read_text()
    assert "not run" not in page
    again = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "python -m pipelines.train" not in again.stderr
    other = [*line, "--train.seed", "1"]
    refused = subprocess.run(other, cwd=tmp_path, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "begun with another config (train.seed differ" in refused.stderr
