"""Where images come from: every source as splits of (key, encoded bytes, label).

A source is lazy: nothing is read before a split is iterated, and a split can be iterated again.
"""

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from sklearn.datasets import load_digits

from pipelines.errors import BadInput

VALIDATION_NAMES = ("validation", "val", "test")


class Example(NamedTuple):
    """One image: a key unique within its split, the file's bytes as they are, and its class."""

    key: str
    encoded: bytes
    label: int


Split = Callable[[], Iterable[Example]]


@dataclass(frozen=True)
class Source:
    """Labelled images in named splits.

    Args:
        class_names: the label of each class, in the order of their numbers.
        splits: `train`, and `validation` where the source has one of its own.
        expected: examples in each split; an estimate where they are not counted yet.
    """

    class_names: list[str]
    splits: dict[str, Split]
    expected: dict[str, int]


def open_source(source: str) -> Source:
    """Finds out what a source is and opens it.

    Args:
        source: `digits`, `tfds:NAME`, or a folder in the ImageNet layout (`train/<class>/*`,
            `val/<class>/*`), the Tiny ImageNet layout, or one folder a class without splits.

    Raises:
        BadInput: the folder is missing or holds no images, or the data set is unknown.
    """
    if source == "digits":
        return _digits()
    if source.startswith("tfds:"):
        return _tfds(source.removeprefix("tfds:"))
    root = Path(source)
    if not root.is_dir():
        raise BadInput(f"no folder {source!r}; give a folder of images, tfds:NAME or digits")
    if (root / "val" / "val_annotations.txt").is_file():
        return _tiny_imagenet(root)
    if (root / "train").is_dir():
        return _split_folders(root)
    return _class_folders(root)


def hold_out(source: Source, fraction: float) -> Source:
    """The source itself if it has a validation split; else one carved from `train` by content.

    An image goes to validation when the SHA-256 of its bytes, as a number in [0, 1), is below
    `fraction`: duplicates stay together, and images added later move none across.
    """
    if "validation" in source.splits:
        return source
    train, total = source.splits["train"], source.expected["train"]

    def side(held_out: bool) -> Iterator[Example]:
        return (e for e in train() if (_content_position(e.encoded) < fraction) == held_out)

    held = round(total * fraction)
    return Source(
        source.class_names,
        {"train": lambda: side(False), "validation": lambda: side(True)},
        {"train": total - held, "validation": held},
    )


def _content_position(encoded: bytes) -> float:
    """The SHA-256 of the bytes as a number in [0, 1)."""
    return int.from_bytes(hashlib.sha256(encoded).digest()[:6]) / 2**48


def _digits() -> Source:
    """scikit-learn's 1,797 scans of handwritten digits, 8x8, enlarged to 32x32 PNG."""
    scans = load_digits()

    def examples() -> Iterator[Example]:
        for index, (scan, label) in enumerate(zip(scans.images, scans.target, strict=True)):
            image = Image.fromarray(np.uint8(np.rint(scan * (255 / 16))))
            png = io.BytesIO()
            image.resize((32, 32), Image.Resampling.BILINEAR).save(png, format="PNG")
            yield Example(f"{index:04d}.png", png.getvalue(), int(label))

    names = [str(name) for name in scans.target_names]
    return Source(names, {"train": examples}, {"train": len(scans.target)})


def _tfds(name: str) -> Source:
    """Any TFDS data set with an image and a label, its bytes not decoded."""
    try:
        builder = tfds.builder(name)
        builder.download_and_prepare()
    except (tfds.core.DatasetNotFoundError, OSError, AssertionError, ValueError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise BadInput(f"cannot prepare tfds:{name}: {first_line}") from error
    features = builder.info.features
    if not {"image", "label"} <= set(features):
        raise BadInput(f"tfds:{name} has the features {sorted(features)}; image and label needed")
    validation = next((split for split in VALIDATION_NAMES if split in builder.info.splits), None)
    names = {"train": "train"} | ({"validation": validation} if validation else {})

    def examples(split: str) -> Split:
        def read() -> Iterator[Example]:
            stream = builder.as_dataset(split, decoders={"image": tfds.decode.SkipDecoding()})
            for index, example in enumerate(stream.as_numpy_iterator()):
                yield Example(f"{split}-{index:08d}", example["image"], int(example["label"]))

        return read

    return Source(
        features["label"].names,
        {ours: examples(theirs) for ours, theirs in names.items()},
        {ours: builder.info.splits[theirs].num_examples for ours, theirs in names.items()},
    )


def _tiny_imagenet(root: Path) -> Source:
    """`train/<wnid>/images/*`, and `val/images/*` labelled by `val/val_annotations.txt`."""
    train = _folder_examples(root / "train", subfolder="images")
    images = root / "val" / "images"
    rows = _read_table(root / "val" / "val_annotations.txt")
    validation = [(images / name, rest.partition("\t")[0]) for name, rest in rows.items()]
    return _from_files(root, {"train": train, "validation": validation})


def _split_folders(root: Path) -> Source:
    """`train/<class>/*` and, where there is one, `validation/`, `val/` or `test/<class>/*`."""
    files = {"train": _folder_examples(root / "train")}
    held_out = next((name for name in VALIDATION_NAMES if (root / name).is_dir()), None)
    if held_out:
        files["validation"] = _folder_examples(root / held_out)
    return _from_files(root, files)


def _class_folders(root: Path) -> Source:
    """`<class>/*`: everything is `train`; `hold_out` carves the validation split."""
    return _from_files(root, {"train": _folder_examples(root)})


def _folder_examples(folder: Path, subfolder: str = "") -> list[tuple[Path, str]]:
    """Every visible file below each class folder, with the folder's name, in sorted order."""
    return [
        (path, class_folder.name)
        for class_folder in sorted(folder.iterdir())
        if class_folder.is_dir() and not class_folder.name.startswith(".")
        for path in sorted((class_folder / subfolder).rglob("*"))
        if not path.is_dir() and not path.name.startswith(".")
    ]


def _from_files(root: Path, files: dict[str, list[tuple[Path, str]]]) -> Source:
    classes = sorted({name for _, name in files["train"]})
    if not classes:
        raise BadInput(
            f"no images in {str(root)!r}; expected train/<class>/*.JPEG and val/<class>/*.JPEG, "
            "the Tiny ImageNet layout, or <class>/*.JPEG"
        )
    for split, listing in files.items():
        if not listing:
            raise BadInput(f"no class folders with images in {split!r} of {str(root)!r}")
    if unknown := sorted({name for _, name in files.get("validation", [])} - set(classes)):
        raise BadInput(
            f"validation has {len(unknown)} classes that train lacks, {unknown[0]!r} first; "
            "both need the same class folders"
        )
    labels = {name: number for number, name in enumerate(classes)}

    def examples(listing: list[tuple[Path, str]]) -> Split:
        def read() -> Iterator[Example]:
            for path, name in listing:
                key = os.fsencode(path.relative_to(root)).decode("utf-8", "replace")
                yield Example(key, _read_bytes(path), labels[name])

        return read

    return Source(
        _label_names(root, classes),
        {split: examples(listing) for split, listing in files.items()},
        {split: len(listing) for split, listing in files.items()},
    )


def _label_names(root: Path, classes: list[str]) -> list[str]:
    """The names that `words.txt` (`<wnid>\\t<words>` a line) gives the classes, else their own.

    ImageNet gives two pairs of classes the same words (crane, maillot); the folder's name is then
    appended to tell them apart.
    """
    listing = root / "words.txt"
    words = _read_table(listing) if listing.is_file() else {}
    # One line each, without blanks around it: label names are stored as the lines of a file.
    names = [" ".join((words.get(name) or name).split()) for name in classes]
    names = [
        f"{name} ({wnid})" if names.count(name) > 1 else name
        for name, wnid in zip(names, classes, strict=True)
    ]
    if unusable := [name for name in names if not name or _is_not_utf8(name)]:
        raise BadInput(
            f"class names in {str(root)!r} are empty or not UTF-8: {unusable[:2]}; rename them"
        )
    return names


def _is_not_utf8(name: str) -> bool:
    """Whether a file's name holds bytes that are not UTF-8."""
    return any("\udc80" <= character <= "\udcff" for character in name)


def _read_table(path: Path) -> dict[str, str]:
    """`{first column: the rest}` of a file of tab-separated lines."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise BadInput(f"{str(path)!r} is not UTF-8: {error}") from error
    rows = {}
    for number, line in enumerate(filter(str.strip, lines), start=1):
        key, tab, rest = line.partition("\t")
        if not tab:
            raise BadInput(f"line {number} of {str(path)!r} has no tab: {line!r}")
        rows[key] = rest.strip()
    return rows


def _read_bytes(path: Path) -> bytes:
    """The file's bytes; none if it cannot be read, which preparation names among the bad."""
    try:
        return path.read_bytes()
    except OSError:
        return b""
