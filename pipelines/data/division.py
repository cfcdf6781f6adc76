"""Which split an image goes to: a function of its content, so that it never changes.

The SHA-256 of the file's bytes, as a number in [0, 1), is its position. Copies stay together, and
images that are added later move none across.
"""

import hashlib

from pipelines.config import PrepareConfig
from pipelines.data.cleaning import Facts


def divide(images: dict[str, list[Facts]], config: PrepareConfig) -> dict[str, list[Facts]]:
    """Carves `validation` (where the source has none), `minival` and the folds from `train`.

    `validation` takes the positions below `holdout_fraction`. `minival` and the folds draw their
    own positions from the same content, so that each is a fair sample of what is left; with
    folds, `train` is the sum `fold0+fold1+...` in TFDS's notation.
    """
    others = {split: listing for split, listing in images.items() if split != "train"}
    train = images["train"]
    carved = {}
    if "validation" not in images:
        carved["validation"], train = _carve(train, "", config.holdout_fraction)
    if config.minival:
        carved["minival"], train = _carve(train, "minival", config.minival)
    return _folds(train, training_splits(config)) | carved | others


def training_splits(config: PrepareConfig) -> list[str]:
    """The parts that `train` is left in."""
    return ["train"] if config.folds == 1 else [f"fold{n}" for n in range(config.folds)]


def position(content: str, purpose: str) -> float:
    """The place in [0, 1) of an image.

    Args:
        content: SHA-256 of its bytes, in hexadecimal.
        purpose: positions for different purposes are independent; "" is the content's own.
    """
    if purpose:
        content = hashlib.sha256(f"{purpose} {content}".encode()).hexdigest()
    return int(content[:12], 16) / 16**12


def _carve(images: list[Facts], purpose: str, fraction: float) -> tuple[list[Facts], list[Facts]]:
    carved, rest = [], []
    for image in images:
        (carved if position(image.content, purpose) < fraction else rest).append(image)
    return carved, rest


def _folds(images: list[Facts], names: list[str]) -> dict[str, list[Facts]]:
    folds: dict[str, list[Facts]] = {name: [] for name in names}
    for image in images:
        folds[names[int(position(image.content, "fold") * len(names))]].append(image)
    return folds
