"""What can be exported: a checkpoint of a run, or a network with published or other weights."""

import dataclasses
import hashlib
import importlib.resources
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from keras_zoo import InputSpec, list_models, weight_sets
from keras_zoo.download import cache_folder
from keras_zoo.weights import num_stored_classes
from pipelines.command import flat
from pipelines.config import ExportConfig
from pipelines.data.images import evaluation_image, hush_transposing
from pipelines.data.streams import (
    class_names,
    encoded_images,
    evaluation_stream,
    num_images,
    open_dataset,
)
from pipelines.errors import BadInput
from pipelines.training.checkpoints import model_sha256, recorded_progress
from pipelines.training.model import image_classifier
from pipelines.training.run import Run

SYNSETS = ("tensorflow_datasets.datasets.imagenet2012", "labels.txt")
PHOTOGRAPHS = ("sklearn.datasets.images", ("china.jpg", "flower.jpg"))


class Images(NamedTuple):
    """Real images, as files and as the trained model sees them.

    Args:
        encoded: the files' bytes, N of them.
        pixels: uint8 `(N, S, S, C)`.
        labels: int64 `(N,)`, or None where they are not known.
    """

    encoded: list[bytes]
    pixels: np.ndarray
    labels: np.ndarray | None


@dataclass(frozen=True)
class Source:
    """A trained network, and what its export has to know of it.

    Args:
        name: what a person calls it: the run's folder, or the network.
        network: the network's name.
        weights_sha256: of the file that the weights are in.
        input: what the network sees of an image.
        class_names: the labels, in the order of the logits.
        classifier: gives the model as it is evaluated: uint8 images -> logits.
        data: the prepared data set to verify with; photographs where None.
        split: its images to verify with.
        train_split: its images to calibrate with.
        origin: what else the model card tells, as plain values.
        run: its folder, where it is a run.
    """

    name: str
    network: str
    weights_sha256: str
    input: InputSpec
    class_names: list[str]
    classifier: Callable[[], keras.Model]
    data: Path | None
    split: str
    train_split: str
    origin: dict[str, Any]
    run: Path | None = None

    def images(self, most: int) -> Images:
        """Images to verify with, `most` at most.

        Raises:
            BadInput: the data set is not there, or has no such split.
        """
        if self.data is None:
            return _photographs(self.input)
        dataset = open_dataset(self.data)
        pixels, labels = self._evaluated(dataset, self.split, most)
        encoded = encoded_images(dataset, self.split).take(most)
        return Images(list(encoded.as_numpy_iterator()), pixels, labels)

    def training_images(self, most: int) -> np.ndarray:
        """Training images as evaluation sees them, uint8 `(N, S, S, C)`, `most` at most.

        Raises:
            BadInput: the data set is not there, or has no such split.
        """
        return self._evaluated(open_dataset(self.data), self.train_split, most)[0]

    def _evaluated(
        self, dataset: tfds.core.DatasetBuilder, split: str, most: int
    ) -> tuple[np.ndarray, np.ndarray]:
        num_images(dataset, split)
        stream = evaluation_stream(dataset, split, self.input, 1).take(most)
        pixels, labels, _ = zip(*stream.as_numpy_iterator(), strict=True)
        return np.concatenate(pixels), np.concatenate(labels)


def open_source(config: ExportConfig) -> Source:
    """The run or the network that a config names.

    Raises:
        BadInput: it is neither, or cannot be exported; the message says what is missing.
    """
    name = str(config.source)
    if config.source.is_dir() or name not in list_models():
        return _from_run(config)
    return _from_network(config)


def _from_run(config: ExportConfig) -> Source:
    try:
        run = Run.open(config.source)
    except BadInput as error:
        raise BadInput(f"{error}; or give a network of python -m keras_zoo list") from error
    if config.init or config.labels:
        raise BadInput(
            f"init and labels are for a network, and {str(config.source)!r} is a run, which has "
            "its own; leave them out"
        )
    trained, checkpoint = run.config(), run.checkpoint(config.checkpoint)
    return Source(
        name=str(config.source),
        network=trained.network,
        weights_sha256=model_sha256(checkpoint),
        input=trained.input,
        class_names=run.class_names(),
        classifier=partial(run.classifier, config.checkpoint),
        data=config.data or trained.data,
        split=trained.validation_split,
        train_split=trained.train_split,
        origin={
            "run": str(config.source),
            "checkpoint": checkpoint.name,
            "data": str(trained.data),
            "metrics": _metrics(checkpoint),
            "train": flat(trained),
        },
        run=config.source,
    )


def _metrics(checkpoint: Path) -> dict[str, Any] | None:
    """What a checkpoint's epoch was evaluated at; None inside an epoch, which was not."""
    progress = recorded_progress(checkpoint)
    if progress.step or not progress.history:
        return None
    row = progress.history[-1]
    return {
        "epoch": progress.epoch,
        "top1": row["val_top1"],
        "top5": row["val_top5"],
        "n": int(row["val_n"]),
    }


def _from_network(config: ExportConfig) -> Source:
    network = str(config.source)
    if config.init is None:
        raise BadInput(
            f"{network!r} is a network without weights; give --init imagenet, a file of weights, "
            "or the folder of a run in its place"
        )
    if config.quantize and config.data is None:
        raise BadInput(
            f"quantize is {config.quantize!r}: what it costs in top-1 takes labelled images to "
            "tell; give --data DATA"
        )
    if config.labels:
        names = config.labels.read_text().removesuffix("\n").split("\n")
    elif config.data:
        names = class_names(open_dataset(config.data))
    else:
        names = synsets()
    try:
        found = weight_sets.find(network, config.init)
        spec = weight_sets.input_spec(network, config.init)
        published = isinstance(found, weight_sets.WeightSet)
        # Fetched where it is not in the cache.
        classifier = image_classifier(network, spec, len(names), config.init)
        file = cache_folder() / found.file if published else found
        classes = num_stored_classes(file)
    except ValueError as error:
        raise BadInput(str(error)) from error
    if classes != len(names):
        raise BadInput(
            f"{config.init!r} has {classes} classes and there are {len(names)} names for them; "
            "give --labels FILE, a name a line"
        )
    with file.open("rb") as opened:
        sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
    return Source(
        name=network,
        network=network,
        weights_sha256=sha256,
        input=spec,
        class_names=names,
        classifier=lambda: classifier,
        data=config.data,
        split="validation",
        train_split="train",
        origin={
            "weights": config.init,
            "data": None if config.data is None else str(config.data),
            "metrics": {"published": dataclasses.asdict(found.published)} if published else None,
        },
    )


def synsets() -> list[str]:
    """ImageNet's classes, as its folders are called."""
    package, file = SYNSETS
    return importlib.resources.files(package).joinpath(file).read_text().split()


def _photographs(spec: InputSpec) -> Images:
    """Two photographs that scikit-learn carries."""
    hush_transposing()
    package, names = PHOTOGRAPHS
    folder = importlib.resources.files(package)
    encoded = [folder.joinpath(name).read_bytes() for name in names]
    pixels = [evaluation_image(tf.constant(file), spec) for file in encoded]
    return Images(encoded, np.stack(pixels), None)
