"""A prepared data set, a trained run and an exported model, made once and shared by the tests."""

import gc
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.command import parse
from pipelines.config import ExportConfig, PrepareConfig, TrainConfig

RECIPE = Path(__file__).parents[1] / "pipelines" / "recipes" / "simple_cnn.demo.yaml"


def pytest_collection_finish():
    """What was imported stays: no collection of garbage looks through it again.

    Keras's `clear_session` collects, after every test of a network.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def workplace(tmp_path_factory):
    return tmp_path_factory.mktemp("workplace")


@pytest.fixture(scope="session")
def digits(workplace):
    """The embedded digits as a prepared data set."""
    from pipelines.data.preparation import prepare

    out = workplace / "digits"
    prepare(PrepareConfig("digits", out, holdout_fraction=0.2))
    return out


@pytest.fixture(scope="session")
def numbered(workplace):
    """A prepared data set of 257 one-coloured images in three files; red and green tell which.

    Image i is of the class i % 10; `validation` is the same images as `train`.
    """
    import numpy as np
    import tensorflow as tf
    import tensorflow_datasets as tfds

    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(num_classes=10),
        }
    )
    folder = workplace / "numbered"
    folder.mkdir()
    for split in ("train", "validation"):
        for number, indices in enumerate(np.split(np.arange(257), [100, 190])):
            name = f"images-{split}.tfrecord-{number:05d}-of-00003"
            with tf.io.TFRecordWriter(str(folder / name)) as file:
                for index in indices:
                    pixels = np.full((16, 16, 3), [index % 256, index // 256, 0], np.uint8)
                    example = {"image": pixels, "label": index % 10}
                    file.write(features.serialize_example(features.encode_example(example)))
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name="images", filetype_suffix="tfrecord"
    )
    tfds.folder_dataset.write_metadata(
        data_dir=folder, features=features, filename_template=template
    )
    return folder


def numbered_config(data: Path, *overrides: str) -> TrainConfig:
    """Small batches of the numbered images, whole and unmirrored unless told otherwise."""
    arguments = {
        "--network": "resnet18",
        "--input.size_px": "32",
        "--epochs": "3",
        "--schedule.warmup_epochs": "1",
        "--global_batch_size": "16",
        "--shuffle_buffer": "64",
        "--augment.crop_area": "[1.0, 1.0]",
        "--augment.crop_aspect": "[1.0, 1.0]",
        "--augment.horizontal_flip": "false",
    }
    flat = [part for pair in arguments.items() for part in pair]
    return parse(TrainConfig, ["--data", str(data), *flat, *overrides])


def digits_config(data: Path, run: Path, *overrides: str) -> TrainConfig:
    """The demo's recipe on prepared digits."""
    arguments = ["--config", str(RECIPE), "--data", str(data), "--run", str(run), *overrides]
    return parse(TrainConfig, arguments)


@pytest.fixture(scope="session")
def run(digits, workplace):
    """SimpleCNN trained on the digits for three epochs."""
    from pipelines.training.train import train

    folder = workplace / "runs" / "digits"
    train(digits_config(digits, folder, "--epochs", "3"))
    return folder


@pytest.fixture(scope="session")
def saved_models(run, workplace):
    """A folder with one exported model, `digits`."""
    from pipelines.exporting.export import export

    folder = workplace / "saved_models"
    export(ExportConfig(run, folder / "digits"))
    return folder


@pytest.fixture(scope="session")
def compressed(run, saved_models, workplace):
    """The digits' second version: in every format, compressed in every way."""
    from pipelines.exporting.export import export

    out = workplace / "compressed" / "digits"
    shutil.copytree(saved_models / "digits", out)
    formats = "savedmodel,onnx,litert,openvino"
    return export(ExportConfig(run, out, format=formats, quantize="int8,dynamic,float16"))


@pytest.fixture(scope="session")
def command():
    """Runs `python -m ARGUMENTS` in a process of its own and captures what it prints."""

    def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", *map(str, arguments)], cwd=cwd, capture_output=True, text=True
        )

    return run
