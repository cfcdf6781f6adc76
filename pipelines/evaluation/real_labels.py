"""ImageNet-ReaL: accuracy against every label that fits an image, by the judgement of several.

Beyer, Hénaff, Kolesnikov, Zhai, van den Oord, "Are we done with ImageNet?", 2020
(arXiv:2006.07159). `real.json` (github.com/google-research/reassessed-imagenet) lists for each of
ILSVRC2012's 50,000 validation images, in the order of their names, the classes that are right:
numbers from 0 to 999 in the order of the synsets, which is ours. Images without any do not count.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from pipelines.data.streams import class_names, names_and_labels
from pipelines.errors import BadInput
from pipelines.training.model import predictions

IMAGES = 50_000
CLASSES = 1000
# Whatever folder or prefix the preparation put before it.
_NUMBERED = re.compile(r"ILSVRC2012_val_(\d{8})\b")


@dataclass(frozen=True)
class RealAccuracy:
    """Images that have labels, and the share of them whose first answer is one of these."""

    n: int
    top1: float

    def __str__(self) -> str:
        return f"ReaL labels: top-1 {self.top1:.4f}, n = {self.n:,}"


def measure_real(model: keras.Model, stream: tf.data.Dataset) -> RealAccuracy:
    """Counts first answers that are right, on all devices of the current strategy.

    Args:
        model: uint8 images -> logits.
        stream: batches of (images, bool `(B, 1000)`: the labels of each); images without any do
            not count. Ties are broken against the labels.
    """
    strategy = tf.distribute.get_strategy()

    def one_replica(images: tf.Tensor, right: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits = predictions(model, images)
        best = tf.reduce_max(tf.where(right, logits, -np.inf), axis=1, keepdims=True)
        first = logits >= best
        only_right = tf.reduce_any(first & right, axis=1) & ~tf.reduce_any(first & ~right, axis=1)
        return tf.math.count_nonzero(tf.reduce_any(right, axis=1)), tf.math.count_nonzero(
            only_right
        )

    @tf.function(reduce_retracing=True)
    def step(images: tf.Tensor, right: tf.Tensor) -> list[tf.Tensor]:
        counts = strategy.run(one_replica, args=(images, right))
        return [strategy.reduce("SUM", count, axis=None) for count in counts]

    batches = strategy.experimental_distribute_dataset(stream)
    n, correct = np.sum([[count.numpy() for count in step(*batch)] for batch in batches], axis=0)
    return RealAccuracy(int(n), int(correct) / int(n))


def with_real_labels(
    images: tf.data.Dataset, dataset: tfds.core.DatasetBuilder, split: str, file: Path
) -> tf.data.Dataset:
    """The images of an `evaluation_stream` with their ReaL labels: `(images, bool (B, 1000))`.

    Args:
        images: the stream.
        dataset: of which it is a split.
        split: which one.
        file: `real.json`.

    Raises:
        BadInput: another file, not ImageNet's 1,000 classes, classes that seem to be in another
            order, or images that are not the validation images of ILSVRC2012 by their names; or
            none of them has a label.
    """
    if len(class_names(dataset)) != CLASSES:
        raise BadInput(
            f"{dataset.data_dir} has {len(class_names(dataset)):,} classes; ReaL labels are "
            f"numbers of ImageNet's {CLASSES:,}"
        )
    labels = _read(file)
    names, own_labels = names_and_labels(dataset, split)
    numbers = [_number(name, split) for name in names]
    batch_size = images.element_spec[0].shape[0]
    # As many rows as images, the blank ones that fill the last batch among them.
    right = np.zeros((len(numbers) + -len(numbers) % batch_size, CLASSES), bool)
    for row, number in enumerate(numbers):
        right[row, labels[number - 1]] = True
    if not right.any():
        raise BadInput(f"no image in {split!r} of {dataset.data_dir} has a ReaL label")
    labelled = int(right.any(axis=1).sum())
    agreeing = int(right[range(len(own_labels)), own_labels].sum())
    # Most labels of ILSVRC2012 are right; in another order of classes next to none is.
    if 2 * agreeing < labelled:
        raise BadInput(
            f"{agreeing:,} of {labelled:,} images in {split!r} of {dataset.data_dir} have their "
            "own label among their ReaL labels; its classes are not in the order of the sorted "
            "synsets, it seems: prepare it from folders or archives named by synset"
        )
    answers = tf.data.Dataset.from_tensor_slices(right).batch(batch_size)
    return tf.data.Dataset.zip(images, answers).map(lambda batch, answer: (batch[0], answer))


def _read(file: Path) -> list[list[int]]:
    try:
        labels = json.loads(file.read_text())
    except ValueError as error:
        raise BadInput(f"{str(file)!r} is not JSON: {error}; give real.json") from error
    if not isinstance(labels, list) or len(labels) != IMAGES:
        found = f"{len(labels):,} entries" if isinstance(labels, list) else "no list"
        raise BadInput(
            f"{str(file)!r} holds {found}; real.json has an entry for each of ILSVRC2012's "
            f"{IMAGES:,} validation images"
        )
    for number, classes in enumerate(labels, start=1):
        if not isinstance(classes, list) or not all(map(_is_class, classes)):
            raise BadInput(
                f"entry {number:,} of {str(file)!r} is {classes!r}; a list of numbers from 0 to "
                f"{CLASSES - 1}"
            )
    return labels


def _is_class(number: object) -> bool:
    return type(number) is int and 0 <= number < CLASSES


def _number(name: str, split: str) -> int:
    """Which validation image of ILSVRC2012 a file is, from 1."""
    numbered = _NUMBERED.search(name)
    if not numbered or not 1 <= int(numbered[1]) <= IMAGES:
        raise BadInput(
            f"{name!r} in the split {split!r} is no validation image of ILSVRC2012; ReaL labels "
            f"are found by the names ILSVRC2012_val_00000001 to ILSVRC2012_val_{IMAGES:08d}"
        )
    return int(numbered[1])
