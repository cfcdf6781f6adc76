"""The input doctor measures every stage of the training stream and names the slowest."""

import csv
import itertools
import json

import numpy as np
import pytest
import tensorflow as tf

from keras_zoo import InputSpec
from pipelines.benchmark import main
from pipelines.benchmarking import input as benchmark
from pipelines.config import AugmentConfig, PrepareConfig, TrainConfig
from pipelines.data import doctor
from pipelines.data.preparation import prepare
from pipelines.data.streams import open_dataset, training_stream
from tests.conftest import numbered_config
from tests.photographs import photograph, read

TRAIN_IMAGES = 45
PLENTY = dict.fromkeys(doctor.LABELS, 10_000.0)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Photographs of two classes, of 60 by 80 pixels."""
    root = tmp_path_factory.mktemp("doctor")
    for index in range(TRAIN_IMAGES + 15):
        split = "train" if index < TRAIN_IMAGES else "val"
        photograph(root / "data" / split / f"class{index % 2}" / f"{index}.JPEG", index, (60, 80))
    prepare(PrepareConfig(str(root / "data"), root / "out"))
    return root / "out"


def configured(**options):
    size = InputSpec(224)
    return TrainConfig("data", input=size, **{"augment": AugmentConfig(), **options})


def test_every_stage_the_stream_and_the_network_are_measured(
    prepared, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(doctor, "PASS_S", 0.01)
    # In this process, where a pass is short.
    monkeypatch.setattr(benchmark, "in_new_process", lambda function, config: function(config))
    monkeypatch.chdir(tmp_path)
    arguments = [
        *("input", "simple_cnn", "--data", str(prepared), "--global_batch_size", "20"),
        *("--shuffle_buffer", "30", "--decode_threads", "3", "--augment.mixup_alpha", "0.2"),
        *("--augment.first_size_px", "32", "--input.size_px", "64"),
    ]
    assert main([*arguments, "--json"]) == 0
    (report,) = json.loads(capsys.readouterr().out)["reports"]
    assert list(report["images_per_s"]) == list(doctor.LABELS)
    assert min(report["images_per_s"].values()) > 0
    assert 1 <= report["step_images"] <= 20
    assert report["decode_threads"] == 3
    assert report["first_batch_s"] > 0
    assert report["shuffle_images"] == 30
    sizes = sorted(len(encoded) for encoded, _ in read(prepared, "train").values())
    assert sum(sizes[:30]) <= report["shuffle_mib"] * 2**20 <= sum(sizes[-30:])
    assert "bottleneck" in report["bottleneck"]
    with (tmp_path / "results" / "input.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    told = {row["stage"]: float(row["images_per_s"]) for row in rows}
    assert told == report["images_per_s"]
    table = str(doctor.InputReport(**report)).splitlines()
    assert [line for line in table if line.startswith("whole stream")]
    assert table[-1] == report["bottleneck"]


def test_a_stage_handles_each_image_of_the_sample_once_a_pass(numbered, monkeypatch):
    """The numbered images tell by their red which they are, modulo 256."""
    monkeypatch.setattr(doctor, "SAMPLE_IMAGES", 257)
    config = numbered_config(numbered)
    dataset = open_dataset(numbered)
    options = training_stream(dataset, config, first_epoch=0).options()
    stages = doctor.stages(dataset, config, options)
    assert [*stages, "copy"] == list(doctor.STAGES)
    for name in ("decode", "resize", "augment"):
        elements = stages[name].stream.as_numpy_iterator()
        red = np.concatenate(list(itertools.islice(elements, 16)))
        assert len(red) == 16 * stages[name].images == 512
        assert sorted(red[:257]) == [0, *range(256)], name
        assert list(red[257:]) == list(red[:255]), name
    images, labels = next(stages["batch"].stream.as_numpy_iterator())
    assert images.shape == (stages["batch"].images, 32, 32, 3) == (16, 32, 32, 3)
    assert list(labels.argmax(axis=1)) == list(images[:, 0, 0, 0] % 10)


def test_reading_goes_over_the_files_again_and_again(prepared):
    config = TrainConfig(prepared, network="simple_cnn", global_batch_size=20)
    dataset = open_dataset(prepared)
    options = training_stream(dataset, config, first_epoch=0).options()
    stage = doctor.stages(dataset, config, options)["read"]
    lengths = np.concatenate(list(stage.stream.take(3).as_numpy_iterator()))
    sizes = [len(encoded) for encoded, _ in read(prepared, "train").values()]
    assert sorted(lengths[:TRAIN_IMAGES]) == sorted(sizes)
    assert sorted(lengths[TRAIN_IMAGES : 2 * TRAIN_IMAGES]) == sorted(sizes)


@pytest.mark.parametrize(("step_s", "images"), [(0.0, 8), (1e9, 10)])
def test_a_device_is_measured_with_its_share_of_the_batch_or_what_a_step_has_time_for(
    step_s, images, monkeypatch
):
    monkeypatch.setattr(doctor, "STEP_S", step_s)
    monkeypatch.setattr(doctor, "_rate", lambda take, count: count if take() > 0 else 0)
    spec = InputSpec(32, channels="L", mean=(127.5,), std=(127.5,))
    config = TrainConfig("data", network="simple_cnn", input=spec)
    batch = tf.zeros((20, *spec.shape), tf.uint8), tf.one_hot([0, 1] * 10, 2)
    assert doctor.appetite(config, batch, devices=2) == (2 * images, images)


def test_a_rate_is_images_by_seconds(monkeypatch):
    """On a clock that only the measured calls move: 32 images each in 0.125 s."""
    clock = itertools.count()
    now = [0.0]
    monkeypatch.setattr(doctor.time, "perf_counter", lambda: now[0])

    def take():
        now[0] += 0.125 if next(clock) else 60.0

    assert doctor._rate(take, 32) == 256.0


@pytest.mark.parametrize(
    ("slowest", "options", "short_side_px", "settings"),
    [
        ("read", {}, 375, ["prepare with --short_side_px 320", "a faster disk"]),
        ("read", {}, 300, ["a faster disk"]),
        ("decode", {}, 375, ["prepare with --short_side_px 320", "--data_service grpc://"]),
        ("decode", {}, 256, ["--data_service grpc://"]),
        ("decode", {"decode_threads": 1}, 256, ["--decode_threads 4", "--data_service grpc://"]),
        ("resize", {"decode_threads": 2}, 375, ["--decode_threads 4", "--data_service grpc://"]),
        (
            "augment",
            {"augment": AugmentConfig(policy="randaugment")},
            375,
            ["--augment.policy trivial_augment_wide", "--data_service grpc://"],
        ),
        ("augment", {"augment": AugmentConfig(colour_jitter=0.4)}, 375, ["--data_service grpc://"]),
        (
            "batch",
            {"augment": AugmentConfig(mixup_alpha=0.2)},
            375,
            ["--augment.mixup_alpha 0 --augment.cutmix_alpha 0", "an --input.size_px below 224"],
        ),
        ("copy", {}, 375, ["an --input.size_px below 224"]),
    ],
)
def test_the_slowest_stage_is_named_with_its_settings(
    slowest, options, short_side_px, settings, monkeypatch
):
    monkeypatch.setattr(doctor, "available_cores", lambda: 4)
    rates = PLENTY | {slowest: 420.4, "stream": 400, "model": 900}
    told = doctor.bottleneck(rates, configured(**options), short_side_px)
    opening, _, named = told.rpartition("900: ")
    assert opening.startswith(f"{slowest} is the bottleneck: 420 images/s alone and 400 in the")
    for setting, given in zip(settings, named.split(", or "), strict=True):
        assert setting in given


def test_a_network_that_the_stream_outruns_is_the_bottleneck():
    told = doctor.bottleneck(PLENTY | {"stream": 852, "model": 3.44}, configured(), 375)
    assert told.startswith("resnet50 is the bottleneck: it takes 3.4 images/s of the stream's 852")


def test_a_data_service_that_is_too_slow_needs_workers():
    """What the stages of this process take is not what the service's machines take."""
    config = configured(data_service="grpc://far:5050")
    told = doctor.bottleneck(PLENTY | {"decode": 5, "stream": 700, "model": 900}, config, 375)
    assert told.startswith("the data service is the bottleneck: 700 images/s")
    assert told.endswith("python -m pipelines.data_service --join grpc://far:5050")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["outputs"], "no subcommand 'outputs'; one of train, infer, input, serve"),
        (["input", "resnet50", "--data", "nowhere"], "no prepared data set in 'nowhere'"),
        (["input", "resnet5", "--data", "."], "did you mean 'resnet50'?"),
        (["input"], "--data"),
        (
            ["input", "resnet50", "--data", "PREPARED", "--global_batch_size", "46"],
            "46, more than the 45 images of",
        ),
        (["input", "resnet50", "--data", "PREPARED", "--train_split", "fold3"], "no split 'fold3'"),
    ],
)
def test_bad_input_is_one_line_and_status_2(prepared, arguments, told, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "in_new_process", lambda function, config: function(config))
    assert main([str(prepared) if part == "PREPARED" else part for part in arguments]) == 2
    printed = capsys.readouterr().err
    assert told in printed
    assert printed.count("\n") == 1


def test_without_a_subcommand_the_help_lists_them(capsys):
    assert main([]) == main(["--help"]) == 0
    assert "  input      what limits the stream" in capsys.readouterr().out
