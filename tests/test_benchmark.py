"""Rows of results: what is in them, how they are added, and what is refused."""

import csv
import dataclasses
import json
import math
import shlex
import statistics

import numpy as np
import pytest
from scipy import stats

import keras_zoo
from keras_zoo import card
from pipelines.benchmark import main
from pipelines.benchmarking import exported, infer, rounds
from pipelines.benchmarking.ceiling import ceiling_gflops
from pipelines.benchmarking.memory import forget_peak, peak_mib
from pipelines.benchmarking.results import Row, append, command_line
from pipelines.benchmarking.rounds import Facts, Round, Subject, noise, summed_up
from pipelines.command import parse, parse_each
from pipelines.config import (
    InferBenchmarkConfig,
    InputBenchmarkConfig,
    ServeBenchmarkConfig,
    TrainBenchmarkConfig,
)
from pipelines.errors import BadInput

# On 32 x 32 x 1, by its own shapes: kernels times positions, then the dense layers.
SIMPLE_CNN_MACS = 30 * 30 * 9 * 32 + 13 * 13 * 9 * 32 * 64 + 6 * 6 * 64 * 128 + 128 * 10


def read(file):
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


def check(row, passes):
    """What a row says follows from its own numbers and the network's card."""
    assert float(row["images_per_s"]) > 0
    assert 0 <= float(row["noise"]) < math.inf
    assert 0 < float(row["p50_ms"]) <= float(row["p99_ms"])
    assert float(row["memory_mib"]) >= 0
    assert int(row["parameters"]) == card("simple_cnn").parameters
    assert float(row["gmacs"]) * 1e9 == pytest.approx(SIMPLE_CNN_MACS)
    assert 0 < float(row["ceiling_gflops"]) < math.inf
    operations = 2 * passes * float(row["gmacs"]) * float(row["images_per_s"])
    assert float(row["utilisation"]) == pytest.approx(operations / float(row["ceiling_gflops"]))
    assert row["device"]
    assert row["processor"]


def test_infer_adds_a_row_that_follows_from_its_numbers(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(rounds, "ROUNDS", 2)
    # What is prepared is prepared elsewhere; the rounds are quicker here.
    monkeypatch.setattr(infer, "in_new_process", lambda function, *given: function(*given))
    arguments = ["infer", "simple_cnn", "--seconds", "0.1", "--out", str(tmp_path)]
    assert main([*arguments, "--json"]) == 0
    (row,) = read(tmp_path / "infer.csv")
    check(row, passes=1)
    assert (row["size_px"], row["num_classes"], row["batch_size"]) == ("32", "10", "1")
    assert (row["precision"], row["engine"]) == ("float32", "savedmodel")
    (told,) = json.loads(capsys.readouterr().out)["rows"]
    assert {name: "" if value is None else str(value) for name, value in told.items()} == row


@pytest.mark.slow
@pytest.mark.parametrize(("subject", "passes"), [("train", 3), ("serve", 1)])
def test_training_and_serving_add_rows_too(subject, passes, tmp_path, monkeypatch):
    monkeypatch.setattr(rounds, "ROUNDS", 2)
    for count in (1, 2):
        assert main([subject, "simple_cnn", "--seconds", "1", "--out", str(tmp_path)]) == 0
        rows = read(tmp_path / f"{subject}.csv")
        assert len(rows) == count
        check(rows[-1], passes)
        assert float(rows[-1]["memory_mib"]) > 0
    assert rows[-1]["refused"] == ("0" if subject == "serve" else "")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnx", "litert", "openvino"])
def test_other_engines_are_measured(engine, tmp_path, monkeypatch):
    monkeypatch.setattr(rounds, "ROUNDS", 2)
    options = ["--engine", engine, "--seconds", "0.1", "--out", str(tmp_path)]
    assert main(["infer", "simple_cnn", *options]) == 0
    (row,) = read(tmp_path / "infer.csv")
    check(row, passes=1)
    assert row["engine"] == engine


@pytest.fixture
def row(tmp_path):
    """Of three rounds, made up: 90, 100 and 110 images a second."""
    config = InferBenchmarkConfig("resnet18", size_px=64, out=tmp_path)
    made = [Round(rate, [1 / rate] * 3, 10 * rate, 7.0) for rate in (110.0, 90.0, 100.0)]
    return summed_up(Subject("infer", None, None), config, Facts(11, 148_000_000), made)


def test_a_row_sums_up_its_rounds(row):
    assert row.images_per_s == 100
    assert row.p50_ms == pytest.approx(10)
    assert row.memory_mib == 1100
    assert row.utilisation == pytest.approx(2 * 0.148 * 100 / 7)


def test_the_noise_holds_the_median_of_as_many_further_rounds():
    """Told from draws of a normal distribution, of which it is to hold 99 of 100."""
    draws = stats.norm.rvs(100, 2, (2000, 2, 5), random_state=0)
    held = [
        abs(statistics.median(again) / statistics.median(first) - 1) <= noise(list(first))
        for first, again in draws
    ]
    assert 0.985 <= np.mean(held) < 1
    assert noise([100.0] * 5) == 0


def test_adding_a_row_keeps_those_before(row, tmp_path):
    append([row], tmp_path)
    before = (tmp_path / "infer.csv").read_text()
    append([dataclasses.replace(row, network='a "b", c')], tmp_path)
    assert (tmp_path / "infer.csv").read_text().startswith(before)
    assert [found["network"] for found in read(tmp_path / "infer.csv")] == ["resnet18", 'a "b", c']


def test_a_file_with_other_columns_stays_as_it_is(row, tmp_path):
    (tmp_path / "infer.csv").write_text("network,rate\nresnet18,5\n")
    with pytest.raises(BadInput, match=r"other columns than this version writes .*--out"):
        append([row], tmp_path)
    assert (tmp_path / "infer.csv").read_text() == "network,rate\nresnet18,5\n"


def test_every_column_of_a_row_is_documented():
    for field in dataclasses.fields(Row):
        assert f"        {field.name}: " in Row.__doc__


@pytest.mark.parametrize(
    ("config_class", "arguments"),
    [
        (InferBenchmarkConfig, ["--network=resnet18"]),
        (InferBenchmarkConfig, ["--network=vgg16", "--size_px=64", "--engine=onnx"]),
        (TrainBenchmarkConfig, ["--network=alexnet", "--batch_size=4", "--precision=bfloat16"]),
        (ServeBenchmarkConfig, ["--network=resnet50", "--clients=3", "--out=a b"]),
        (
            InputBenchmarkConfig,
            ["--network=simple_cnn", "--data=d", "--input.size_px=40", "--augment.crop_area=[1,1]"],
        ),
    ],
)
def test_the_command_of_a_row_repeats_its_config(config_class, arguments):
    config = parse(config_class, arguments)
    python, flag, module, subject, *rest = shlex.split(command_line("subject", config))
    assert (python, flag, module, subject) == ("python", "-m", "pipelines.benchmark", "subject")
    assert parse_each(config_class, rest) == [config]


def test_each_network_has_its_own_input():
    small, large = parse_each(InputBenchmarkConfig, ["simple_cnn", "inception_v3", "--data=d"])
    assert (small.input, large.input) == (card("simple_cnn").input, card("inception_v3").input)


def test_a_network_of_other_channels_and_width_is_the_one_that_is_measured(tmp_path):
    config = InferBenchmarkConfig(
        "simple_cnn", width=0.5, size_px=48, channels="RGB", num_classes=20
    )
    assert config.input.shape == (48, 48, 3)
    model = keras_zoo.build("simple_cnn", num_classes=20, input_shape=(48, 48, 3), width=0.5)
    assert exported.write(config, tmp_path).parameters == model.count_params()


def test_a_ceiling_is_a_rate_and_a_peak_is_what_was_held():
    assert 0 < ceiling_gflops("float32") < math.inf
    before_mib = forget_peak()
    held = bytearray(128 * 2**20)
    del held
    # The kernel counts pages in batches, and TensorFlow's threads hold some too.
    assert 120 <= peak_mib() - before_mib <= 200


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["infer", "resnet5"], "did you mean 'resnet50'?"),
        (["infer", "resnet18", "--channels", "CMYK"], "channels is 'CMYK'; one of"),
        (["infer", "resnet18", "--width", "0"], "width is 0.0; it is above 0"),
        (["infer"], "--network"),
        (["infer", "resnet18", "--size_px", "16"], "size_px is 16; resnet18 needs at least 32"),
        (["infer", "resnet18", "--engine", "litert-int8"], "one of savedmodel, onnx"),
        (["train", "resnet18", "--precision", "int8"], "one of float32, bfloat16, float16"),
        (["train", "resnet18", "--seconds", "0"], "seconds is 0.0; above 0"),
        (["serve", "resnet18", "--clients", "0"], "clients is 0; at least 1"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, told, capsys):
    assert main(arguments) == 2
    printed = capsys.readouterr().err
    assert told in printed
    assert printed.count("\n") == 1


def test_the_networks_given_win_over_a_recipe():
    arguments = ["resnet101", "--data=d", "--recipe", "resnet50.modern"]
    (config,) = parse_each(InputBenchmarkConfig, arguments)
    assert config.network == "resnet101"
