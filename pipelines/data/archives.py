"""The original archives of ILSVRC2012, read where they lie.

Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015
(arXiv:1409.0575). The archives are uncompressed tars, so an image is a stretch of the file.
"""

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from scipy.io import loadmat

from pipelines.errors import BadInput

TRAIN_ARCHIVE = "ILSVRC2012_img_train.tar"
VALIDATION_ARCHIVE = "ILSVRC2012_img_val.tar"
DEVKIT_ARCHIVE = "ILSVRC2012_devkit_t12.tar.gz"
ANNOTATIONS = "val_annotations.txt"


class Member(NamedTuple):
    """An image in a file: its key, where its bytes lie, and what its class is called.

    `mtime_ns` is when the file was last changed; `size` is None where there is no such file.
    """

    key: str
    path: str
    mtime_ns: int
    offset: int
    size: int | None
    class_id: str


def ilsvrc2012(root: Path) -> tuple[dict[str, list[Member]], dict[str, str]]:
    """Lists the archives in a folder.

    `ILSVRC2012_img_train.tar` holds one tar a synset. `ILSVRC2012_img_val.tar`, where it is
    there, takes its labels from `val_annotations.txt` (`<file> <wnid>` a line), else from
    `ILSVRC2012_devkit_t12.tar.gz`.

    Returns:
        The images of each split, and the words of each synset, where the devkit is there.

    Raises:
        BadInput: an archive is broken, or the validation images have no labels.
    """
    devkit = root / DEVKIT_ARCHIVE
    members = {"train": list(_train(root / TRAIN_ARCHIVE))}
    if (root / VALIDATION_ARCHIVE).is_file():
        members["validation"] = list(_validation(root))
    words = dict(_synsets(devkit).values()) if devkit.is_file() else {}
    return members, words


@contextmanager
def _opened(archive: Path, mode: str = "r:") -> Iterator[tarfile.TarFile]:
    """A tar whose name is told where it turns out to be broken."""
    try:
        with tarfile.open(archive, mode) as tar:
            yield tar
    except (tarfile.TarError, EOFError) as error:
        raise BadInput(f"{str(archive)!r} is broken: {error}; fetch it anew") from error


def _train(archive: Path) -> Iterator[Member]:
    mtime_ns = archive.stat().st_mtime_ns
    with _opened(archive) as outer:
        for class_tar in sorted(_files(outer), key=lambda member: member.name):
            wnid = Path(class_tar.name).stem
            with tarfile.open(fileobj=outer.extractfile(class_tar), mode="r:") as inner:
                for image in sorted(_files(inner), key=lambda member: member.name):
                    offset = class_tar.offset_data + image.offset_data
                    key = f"train/{wnid}/{Path(image.name).name}"
                    yield Member(key, str(archive), mtime_ns, offset, image.size, wnid)


def _validation(root: Path) -> Iterator[Member]:
    archive = root / VALIDATION_ARCHIVE
    with _opened(archive) as images:
        listing = sorted(_files(images), key=lambda member: member.name)
    names = [Path(image.name).name for image in listing]
    labels = _labels(root, names)
    if missing := [name for name in names if name not in labels]:
        raise BadInput(
            f"{len(missing)} images of {str(archive)!r} have no label, {missing[0]} first; "
            f"name each in {ANNOTATIONS}"
        )
    mtime_ns = archive.stat().st_mtime_ns
    for name, image in zip(names, listing, strict=True):
        place = (str(archive), mtime_ns, image.offset_data, image.size)
        yield Member(f"val/{name}", *place, labels[name])


def _labels(root: Path, names: list[str]) -> dict[str, str]:
    """The synset of each validation image, from whichever file tells it."""
    annotations, devkit = root / ANNOTATIONS, root / DEVKIT_ARCHIVE
    if annotations.is_file():
        rows = (line.split()[:2] for line in annotations.read_text().splitlines() if line.strip())
        return dict(rows)
    if not devkit.is_file():
        raise BadInput(
            f"{str(root / VALIDATION_ARCHIVE)!r} has no labels; put {DEVKIT_ARCHIVE} beside it, "
            f"or {ANNOTATIONS} with a line '<file> <wnid>' for each image"
        )
    synsets = _synsets(devkit)
    with _opened(devkit, "r") as archive:
        truth = _open_ending(archive, "ILSVRC2012_validation_ground_truth.txt").read().split()
    if len(truth) != len(names):
        raise BadInput(
            f"{str(devkit)!r} labels {len(truth):,} images and {VALIDATION_ARCHIVE} holds "
            f"{len(names):,}; fetch both anew"
        )
    return {name: synsets[int(number)][0] for name, number in zip(names, truth, strict=True)}


def _synsets(devkit: Path) -> dict[int, tuple[str, str]]:
    """`ILSVRC2012_ID` -> (wnid, words), from the devkit's `meta.mat`."""
    with _opened(devkit, "r") as archive:
        table = loadmat(_open_ending(archive, "meta.mat"), squeeze_me=True)["synsets"]
    return {
        int(row["ILSVRC2012_ID"]): (str(row["WNID"]), str(row["words"]))
        for row in np.atleast_1d(table)
    }


def _files(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    return (member for member in archive if member.isfile())


def _open_ending(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    """The member of this file name, in whatever folder it lies."""
    for member in _files(archive):
        if Path(member.name).name == name:
            return archive.extractfile(member)
    raise BadInput(f"{archive.name!r} holds no {name}; fetch it anew")
