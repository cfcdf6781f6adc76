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

import numpy as np

from pipelines.errors import BadInput
from pipelines.evaluation.metrics import Interval, wilson_interval
from pipelines.evaluation.predictions import Answers

IMAGES = 50_000
CLASSES = 1000
# Whatever folder or prefix the preparation put before it.
_NUMBERED = re.compile(r"ILSVRC2012_val_(\d{8})\b")

# The classes that are right, of each image.
RealLabels = list[set[int]]


@dataclass(frozen=True)
class RealAccuracy:
    """Images that have labels, and the share of them whose first answer is one of these."""

    n: int
    top1: float
    top1_interval: Interval


def measure_real(answers: Answers, right: RealLabels) -> RealAccuracy:
    """Counts the images whose answer is among their labels.

    Ties are broken against the labels, as far as the first five answers tell.
    """
    first = answers.top_probabilities == answers.confidence[:, np.newaxis]
    labelled = [row for row, classes in enumerate(right) if classes]
    correct = sum(set(answers.top_ids[row, first[row]]) <= right[row] for row in labelled)
    n = len(labelled)
    return RealAccuracy(n, correct / n, wilson_interval(correct, n))


def real_labels(
    file: Path, images: list[str], own_labels: list[int], data: str, num_classes: int
) -> RealLabels:
    """The ReaL labels of images.

    Args:
        file: `real.json`.
        images: their names in a prepared data set.
        own_labels: their classes in it.
        data: what to call the data set.
        num_classes: classes that it has.

    Raises:
        BadInput: another file, not ImageNet's 1,000 classes, classes that seem to be in another
            order, or images that are not the validation images of ILSVRC2012 by their names; or
            none of them has a label.
    """
    if num_classes != CLASSES:
        raise BadInput(
            f"{data} has {num_classes:,} classes; ReaL labels are numbers of ImageNet's {CLASSES:,}"
        )
    labels = _read(file)
    right = [set(labels[_number(name, data) - 1]) for name in images]
    labelled = sum(map(bool, right))
    if not labelled:
        raise BadInput(f"no image in {data} has a ReaL label")
    agreeing = sum(own in classes for own, classes in zip(own_labels, right, strict=True))
    # Most labels of ILSVRC2012 are right; in another order of classes next to none is.
    if 2 * agreeing < labelled:
        raise BadInput(
            f"{agreeing:,} of {labelled:,} images in {data} have their own label among their ReaL "
            "labels; its classes are not in the order of the sorted synsets, it seems: prepare it "
            "from folders or archives named by synset"
        )
    return right


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


def _number(name: str, data: str) -> int:
    """Which validation image of ILSVRC2012 a file is, from 1."""
    numbered = _NUMBERED.search(name)
    if not numbered or not 1 <= int(numbered[1]) <= IMAGES:
        raise BadInput(
            f"{name!r} in {data} is no validation image of ILSVRC2012; ReaL labels "
            f"are found by the names ILSVRC2012_val_00000001 to ILSVRC2012_val_{IMAGES:08d}"
        )
    return int(numbered[1])
