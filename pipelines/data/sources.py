"""Where images come from: every source as splits that can be read in slices.

Opening a source lists it and reads no image. A slice of a split is small, is read by whichever
process gets it, and reads the same every time: that is what makes preparation parallel and
resumable.
"""

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from sklearn.datasets import load_digits

from pipelines.config import PrepareConfig
from pipelines.data.archives import TRAIN_ARCHIVE, VALIDATION_ARCHIVE, Member, ilsvrc2012
from pipelines.errors import BadInput

# What sources call the splits, in lower case.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
# The splits to evaluate on, the first choice first.
EVALUATION_SPLITS = ("validation", "test")
MANIFESTS = (".csv", ".jsonl")
# Of what lies in a class folder, what nobody takes for an image.
BESIDE_IMAGES = (".txt", ".csv", ".json", ".xml", ".md", ".db")


class Example(NamedTuple):
    """One image: a key unique within its split, the file's bytes as they are, and its class.

    The bytes are None where there is no such file.
    """

    key: str
    encoded: bytes | None
    label: int


class Split(Protocol):
    """Examples in a fixed order. A slice is a `Split` again, can be sent to another process, and
    its `repr` tells it from every other."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice) -> "Split": ...

    def __iter__(self) -> Iterator[Example]: ...


@dataclass(frozen=True)
class Source:
    """Labelled images in named splits.

    Args:
        class_names: the label of each class, in the order of their numbers.
        class_ids: what the source itself calls them (folder, synset); classes are matched by it.
        splits: `train`, `validation` where the source has one of its own, and test sets.
    """

    class_names: list[str]
    class_ids: list[str]
    splits: dict[str, Split]


class Blob(NamedTuple):
    """Where the bytes of an image lie: a whole file, or a stretch of an archive.

    The time of its last change, in ns, tells a file from another that took its place. The size is
    None where there is no such file.
    """

    key: str
    path: str
    mtime_ns: int
    offset: int
    size: int | None
    label: int


@dataclass(frozen=True)
class Blobs:
    """A split of images that lie in files or in uncompressed archives."""

    blobs: tuple[Blob, ...]

    def __len__(self) -> int:
        return len(self.blobs)

    def __getitem__(self, part: slice) -> "Blobs":
        return Blobs(self.blobs[part])

    def __iter__(self) -> Iterator[Example]:
        for key, path, _, offset, size, label in self.blobs:
            if size is None:
                yield Example(key, None, label)
                continue
            with Path(path).open("rb") as file:
                file.seek(offset)
                yield Example(key, file.read(size), label)


@dataclass(frozen=True)
class TfdsExamples:
    """Examples `start` to `stop` of a split of a TFDS data set, their bytes not decoded."""

    folder: str
    split: str
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, part: slice) -> "TfdsExamples":
        start, stop, _ = part.indices(len(self))
        return replace(self, start=self.start + start, stop=self.start + stop)

    def __iter__(self) -> Iterator[Example]:
        part = tfds.core.ReadInstruction(self.split, from_=self.start, to=self.stop, unit="abs")
        stream = tfds.builder_from_directory(self.folder).as_dataset(
            part, decoders={"image": tfds.decode.SkipDecoding()}, shuffle_files=False
        )
        for index, example in enumerate(stream.as_numpy_iterator(), self.start):
            # What the data set calls a file need not be unique.
            parts = (f"{self.split}-{index:08d}", example.get("file_name", b"").decode())
            key = "/".join(filter(None, parts))
            yield Example(key, example["image"], int(example["label"]))


def open_source(config: PrepareConfig) -> Source:
    """The source that a preparation names, its test sets beside it.

    Raises:
        BadInput: a source is missing, holds no images or is unknown; or a test set has a class
            that the source lacks, or the name of a split that the source has.
    """
    source = _open(config.source, config.manual_dir)
    if taken := sorted(config.tests.keys() & source.splits.keys()):
        raise BadInput(
            f"tests has {taken[0]!r}, and {config.source!r} has a split of this name; "
            "choose another"
        )
    tests = {
        name: _as_test(name, _open(test, config.manual_dir), source)
        for name, test in config.tests.items()
    }
    return replace(source, splits=source.splits | tests)


def _open(source: str, manual_dir: Path | None) -> Source:
    if source == "digits":
        return _digits()
    if source.startswith("tfds:"):
        return _tfds(source.removeprefix("tfds:"), manual_dir)
    path = Path(source)
    if path.suffix in MANIFESTS and path.is_file():
        return _manifest(path)
    if not path.is_dir():
        raise BadInput(
            f"no folder {source!r}; give a folder of images, a .csv or .jsonl manifest, "
            "tfds:NAME or digits"
        )
    return next(opener for marker, opener in _LAYOUTS.items() if (path / marker).exists())(path)


def _as_test(name: str, test: Source, source: Source) -> Split:
    """The evaluation split of another source, its labels those of `source`.

    Classes are matched by what the sources call them; where the test set's folders are numbers
    (imagenet_v2), they are the numbers of the classes.
    """
    split = next(test.splits[s] for s in (*EVALUATION_SPLITS, "train") if s in test.splits)
    numbers = {number: label for label, number in enumerate(source.class_ids)}
    if not set(test.class_ids) <= set(numbers) and all(map(str.isdecimal, test.class_ids)):
        numbers = {str(label): label for label in range(len(source.class_ids))}
    unknown = [name for name in test.class_ids if name not in numbers]
    if unknown:
        raise BadInput(
            f"the test set {name!r} has {len(unknown)} classes that the source lacks, "
            f"{unknown[0]!r} first; both need the same class folders, or folders 0 to "
            f"{len(source.class_ids) - 1}"
        )
    return Relabelled(split, tuple(numbers[name] for name in test.class_ids))


@dataclass(frozen=True)
class Relabelled:
    """A split whose label `n` becomes `labels[n]`."""

    split: Split
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, part: slice) -> "Relabelled":
        return replace(self, split=self.split[part])

    def __iter__(self) -> Iterator[Example]:
        for example in self.split:
            yield example._replace(label=self.labels[example.label])


def _digits() -> Source:
    """The 1,797 8x8 scans of handwritten digits that scikit-learn carries, enlarged to 32x32.

    The scans come one writer after another, about fifty digits each.
    """
    scans = load_digits()
    examples = []
    for index, (scan, label) in enumerate(zip(scans.images, scans.target, strict=True)):
        image = Image.fromarray(np.uint8(np.rint(scan * (255 / 16))))
        png = io.BytesIO()
        image.resize((32, 32), Image.Resampling.BILINEAR).save(png, format="PNG")
        examples.append(Example(f"{index:04d}.png", png.getvalue(), int(label)))
    names = [str(name) for name in scans.target_names]
    return Source(names, names, {"train": examples})


def _tfds(name: str, manual_dir: Path | None) -> Source:
    """Any TFDS data set with an image and a label."""
    try:
        builder = tfds.builder(name)
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(manual_dir=manual_dir)
        )
    except (tfds.core.DatasetNotFoundError, OSError, AssertionError, ValueError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise BadInput(f"cannot prepare tfds:{name}: {first_line}") from error
    features = builder.info.features
    if not {"image", "label"} <= set(features):
        raise BadInput(f"tfds:{name} has the features {sorted(features)}; image and label needed")
    splits = builder.info.splits
    called = {SPLIT_NAMES.get(split, split): split for split in splits}
    usable = [called[split] for split in ("train", *EVALUATION_SPLITS) if split in called]
    if not usable:
        raise BadInput(f"tfds:{name} has the splits {sorted(splits)}; train or test needed")
    names = dict(zip(("train", "validation"), usable, strict=False))
    return Source(
        features["label"].names,
        features["label"].names,
        {
            ours: TfdsExamples(str(builder.data_path), theirs, 0, splits[theirs].num_examples)
            for ours, theirs in names.items()
        },
    )


def _ilsvrc2012(root: Path) -> Source:
    """The archives as they are downloaded, not unpacked."""
    files, words = ilsvrc2012(root)
    return _from_members(root, files, words)


def _tiny_imagenet(root: Path) -> Source:
    """`train/<wnid>/images/*`, and `val/images/*` labelled by `val/val_annotations.txt`."""
    train = _training_files(root / "train", subfolder="images")
    images = root / "val" / "images"
    rows = _read_table(root / "val" / "val_annotations.txt")
    validation = [(images / name, rest.partition("\t")[0]) for name, rest in rows.items()]
    return _from_files(root, {"train": train, "validation": validation})


def _folders(root: Path) -> Source:
    """`<split>/<class>/*`, else `<class>/*`: whichever the folders' names tell."""
    splits = {folder: SPLIT_NAMES.get(folder.name.lower()) for folder in _visible_folders(root)}
    named = [split for split in splits.values() if split]
    if "train" in named or (named and len(named) == len(splits)):
        return _split_folders(root, splits)
    return _class_folders(root)


def _split_folders(root: Path, splits: dict[Path, str | None]) -> Source:
    """`<split>/<class>/*` under any of `SPLIT_NAMES`.

    A `test` without class folders has no labels and is left alone, as ImageNet's.
    """
    if strangers := [folder.name for folder, split in splits.items() if split is None]:
        raise BadInput(
            f"{str(root)!r} has folders of splits and others beside them: "
            f"{', '.join(map(repr, strangers))}; a split is called one of {', '.join(SPLIT_NAMES)}"
        )
    folders: dict[str, Path] = {}
    for folder, split in splits.items():
        if split in folders:
            raise BadInput(
                f"{folders[split].name!r} and {folder.name!r} of {str(root)!r} are both "
                f"{split}; leave one"
            )
        folders[split] = folder
    if "train" not in folders:
        raise BadInput(
            f"{str(root)!r} has {', '.join(repr(folder.name) for folder in splits)} and no 'train'"
        )
    files = {"train": _training_files(folders["train"])}
    for split in EVALUATION_SPLITS:
        if split in folders:
            files[split] = _class_folder_files(folders[split])
    if not files.get("test", True):
        del files["test"]
    for split, listing in files.items():
        if not listing:
            raise BadInput(
                f"no class folders with images in {folders[split].name!r} of {str(root)!r}; "
                f"sort its images into them, or list all with their labels in {_A_MANIFEST}"
            )
    return _from_files(root, files)


def _class_folders(root: Path) -> Source:
    """`<class>/*`: everything is `train`; preparation carves the validation split."""
    if (files := _class_folder_files(root)) or not _visible_files(root):
        return _from_files(root, {"train": _training_files(root) if files else []})
    if (root / VALIDATION_ARCHIVE).is_file():
        raise BadInput(
            f"{str(root)!r} has {VALIDATION_ARCHIVE} and no {TRAIN_ARCHIVE}; put it beside"
        )
    raise BadInput(
        f"files lie directly in {str(root)!r} and none in class folders; sort the images into "
        f"<class>/, or list them with their labels in {_A_MANIFEST}"
    )


# What a folder is told by, and who opens it; the first that fits.
_LAYOUTS = {
    TRAIN_ARCHIVE: _ilsvrc2012,
    "val/val_annotations.txt": _tiny_imagenet,
    "": _folders,
}
_A_MANIFEST = "a .csv or .jsonl manifest"


def _manifest(file: Path) -> Source:
    """A table of `path`, `label` and, where there are several, `split`.

    Paths are relative to the manifest's folder or absolute. The splits go by any of `SPLIT_NAMES`;
    test sets have names of their own.
    """
    try:
        # Excel begins a file with a byte order mark.
        with file.open(newline="", encoding="utf-8-sig") as lines:
            rows = (
                list(_csv_rows(lines))
                if file.suffix == ".csv"
                else [json.loads(line) for line in lines if line.strip()]
            )
        if not rows:
            raise ValueError("it lists nothing")
        files: dict[str, list[tuple[Path, str]]] = {"train": []}
        for row in rows:
            split = row.get("split") or "train"
            split = SPLIT_NAMES.get(split.lower(), split)
            if not split.isidentifier():
                raise ValueError(f"{split!r} is no name of a split; letters, digits and _")
            if row["label"] in (None, ""):
                raise ValueError(f"no label for {row['path']}")
            files.setdefault(split, []).append((file.parent / row["path"], str(row["label"])))
        if not files["train"]:
            raise ValueError(f"it lists nothing for train, only for {', '.join(list(files)[1:])}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(
            f"cannot read {str(file)!r} ({type(error).__name__}: {error}); a .csv begins with the "
            "line path,label or path,label,split, a .jsonl has these keys in every line"
        ) from error
    return _from_files(file.parent, files)


def _csv_rows(lines: Iterable[str]) -> Iterator[dict[str, str]]:
    """The rows by the names of their columns, without the blanks around a cell."""
    for row in csv.DictReader(lines, skipinitialspace=True):
        yield {name.strip(): (cell or "").strip() for name, cell in row.items() if name}


def _training_files(folder: Path, subfolder: str = "") -> list[tuple[Path, str]]:
    """The files of `train`, where every class folder must hold one."""
    files = _class_folder_files(folder, subfolder)
    filled = {name for _, name in files}
    empty = [f.name for f in _visible_folders(folder) if f.name not in filled]
    if files and empty:
        raise BadInput(
            f"class folders of {str(folder)!r} hold no image: {', '.join(map(repr, empty))}; "
            "fill or remove them"
        )
    return files


def _class_folder_files(folder: Path, subfolder: str = "") -> list[tuple[Path, str]]:
    """What may be an image below each class folder, with the folder's name, in sorted order."""
    return [
        (path, class_folder.name)
        for class_folder in _visible_folders(folder)
        for path in sorted((class_folder / subfolder).rglob("*"))
        if not path.is_dir()
        and not path.name.startswith(".")
        and path.suffix.lower() not in BESIDE_IMAGES
    ]


def _visible_folders(root: Path) -> list[Path]:
    return sorted(
        path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def _visible_files(root: Path) -> list[Path]:
    return [path for path in root.iterdir() if path.is_file() and not path.name.startswith(".")]


def _from_files(root: Path, files: dict[str, list[tuple[Path, str]]]) -> Source:
    """A source of files, each with the name of its class, whether they are there or not."""

    def member(path: Path, name: str) -> Member:
        relative = path.relative_to(root) if path.is_relative_to(root) else path
        key = os.fsencode(relative).decode("utf-8", "replace")
        if not path.is_file():
            return Member(key, str(path), 0, 0, None, name)
        status = path.stat()
        return Member(key, str(path), status.st_mtime_ns, 0, status.st_size, name)

    members = {split: [member(*row) for row in listing] for split, listing in files.items()}
    return _from_members(root, members, _words(root))


def _words(root: Path) -> dict[str, str]:
    """What `words.txt` (`<wnid>\\t<words>` a line) calls the classes."""
    listing = root / "words.txt"
    return _read_table(listing) if listing.is_file() else {}


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


def _from_members(root: Path, members: dict[str, list[Member]], words: dict[str, str]) -> Source:
    """A source whose classes are those of `train`, in sorted order."""
    classes = sorted({member.class_id for member in members["train"]}, key=_by_number_or_name)
    if not classes:
        raise BadInput(
            f"no images in {str(root)!r}; expected train/<class>/*.JPEG and val/<class>/*.JPEG, "
            f"the Tiny ImageNet layout, {TRAIN_ARCHIVE}, or <class>/*.JPEG"
        )
    labels = {class_id: number for number, class_id in enumerate(classes)}
    for split, listing in members.items():
        if not listing:
            raise BadInput(f"no images for {split!r} in {str(root)!r}")
        if unknown := sorted({member.class_id for member in listing} - set(classes)):
            raise BadInput(
                f"{split} has {len(unknown)} classes that train lacks, {unknown[0]!r} first; "
                "both need the same classes"
            )
    names = _class_names(classes, words)
    if unusable := [name for name in names if not name or not _is_utf8(name)]:
        raise BadInput(
            f"class names in {str(root)!r} are empty or not UTF-8: {unusable[:2]}; rename them"
        )
    return Source(
        names,
        classes,
        {split: Blobs(tuple(_blobs(listing, labels))) for split, listing in members.items()},
    )


def _blobs(members: list[Member], labels: dict[str, int]) -> Iterator[Blob]:
    """Where members lie, for processes that may run in another folder.

    What is listed again has a number behind its key.
    """
    times: Counter[str] = Counter()
    for key, path, *place, class_id in members:
        times[key] += 1
        key = f"{key}#{times[key]}" if times[key] > 1 else key
        yield Blob(key, str(Path(path).absolute()), *place, labels[class_id])


def _by_number_or_name(class_id: str) -> tuple[int, str]:
    """Sorts numbers by their value, before names in the order of their characters."""
    return (int(class_id), "") if class_id.isdecimal() else (2**63, class_id)


def _class_names(classes: Sequence[str], words: dict[str, str]) -> list[str]:
    """The words of each class, else its own name.

    ImageNet gives two pairs of classes the same words (crane, maillot); the folder's name is then
    appended to tell them apart.
    """
    # One line each, without blanks around it: label names are stored as the lines of a file.
    names = [" ".join((words.get(class_id) or class_id).split()) for class_id in classes]
    return [
        f"{name} ({class_id})" if names.count(name) > 1 else name
        for name, class_id in zip(names, classes, strict=True)
    ]


def _is_utf8(name: str) -> bool:
    """Whether a file's name is text: bytes that are not stand in it as lone surrogates."""
    return not any("\udc80" <= character <= "\udcff" for character in name)
