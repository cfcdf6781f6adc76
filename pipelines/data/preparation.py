"""The prepare stage: any source -> a clean TFDS data set on disk, every image known to decode.

Three steps, the first and the last in parallel processes. Pieces of the source are examined; each
leaves a pack (the bytes to keep) and its facts. From the facts alone it is decided which image
goes where. Then the shards are written from the packs. Packs and shards lie in a hidden neighbour
of the output, under names that depend on all that they were made from: what an earlier attempt
finished is found there, what it finished for another purpose is not. The data set is moved out of
there when it is whole.
"""

import dataclasses
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from shlex import quote
from typing import Any

import tensorflow_datasets as tfds
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from pipelines import atomic
from pipelines.config import PrepareConfig
from pipelines.data.cleaning import (
    Balance,
    Cleaning,
    Facts,
    balance,
    clean,
    examine,
    report,
    thumbnail,
)
from pipelines.data.contact_sheet import contact_sheet
from pipelines.data.division import divide
from pipelines.data.parallel import Map, Step, process_map
from pipelines.data.shards import Shard, shards, write_metadata, write_shard
from pipelines.data.sources import Source, Split, open_source
from pipelines.errors import BadInput

REPORT = "preparation.json"
CLEANING = "cleaning.json"
CONTACT_SHEET = "contact_sheet.html"

# Read, examined and kept at a time: small enough that a kill costs seconds.
PIECE_IMAGES = 256
# Starting a process costs as much as examining about so many small images.
IMAGES_A_WORKER = 2048
# Of the bad files, those that a person is shown.
_SHOWN = 10


@dataclass(frozen=True)
class BadFile:
    """A file that was left out, and why."""

    key: str
    reason: str


@dataclass(frozen=True)
class Preparation:
    """What `prepare` did: the folder, its classes, images a split, and what cleaning found.

    Args:
        class_balance: the smallest and the largest class of `train`.
        found: images by kind and by what was done with them (`drop`, `rewrite`, `keep`).
        bad_files: those that were dropped.
    """

    out: str
    source: str
    classes: int
    images: dict[str, int]
    class_balance: str
    found: dict[str, dict[str, int]]
    bad_files: list[BadFile]

    def __str__(self) -> str:
        counts = ", ".join(f"{count:,} {split}" for split, count in self.images.items())
        lines = [f"prepared {self.out}: {counts} images in {self.classes} classes"]
        lines.append(self.class_balance)
        done = {"drop": "dropped", "rewrite": "rewritten", "keep": "kept"}
        for kind, handlings in self.found.items():
            told = ", ".join(f"{count:,} {done[h]}" for h, count in handlings.items())
            lines.append(f"  {kind:<20}{told}")
        if self.bad_files:
            lines.append(f"left out {len(self.bad_files):,} files:")
            lines += [f"  {bad.key}: {bad.reason}" for bad in self.bad_files[:_SHOWN]]
        if self.found:
            lines.append(f"see {self.out}/{CONTACT_SHEET}; all of it is in {CLEANING}")
        train = f"python -m pipelines.train {quote(self.out)} --network resnet18"
        lines.append(f"next: {train}{self._batch}{self._splits}")
        return "\n".join(lines)

    @property
    def _batch(self) -> str:
        """A batch that a small data set fills several times."""
        images = max(self.images.values())
        return f" --global_batch_size {max(1, images // 4)}" if images < 1024 else ""

    @property
    def _splits(self) -> str:
        """What `train` is told so that tuning does not see the validation set."""
        folds = [split for split in self.images if split.startswith("fold")]
        if folds:
            return f" --train_split {'+'.join(folds[1:])} --validation_split {folds[0]}"
        return " --validation_split minival" if "minival" in self.images else ""


@dataclass(frozen=True)
class Piece:
    """A slice of a split to examine, and where to leave what comes of it."""

    split: str
    examples: Split
    workspace: Path
    config: PrepareConfig

    def __len__(self) -> int:
        return len(self.examples)

    @cached_property
    def stem(self) -> Path:
        """Depends on the examples and on all that decides what is noted and kept of them."""
        config = self.config
        rewritten = sorted(config.handling.items())
        settings = (rewritten, config.min_side_px, config.short_side_px, config.quality)
        return self.workspace / _digest(self.split, self.examples, settings)

    @property
    def pack(self) -> Path:
        return self.stem.with_suffix(".pack")

    @property
    def facts_file(self) -> Path:
        """Written last: where it is, the piece is finished."""
        return self.stem.with_suffix(".json")

    def facts(self) -> list[Facts]:
        pack = str(self.pack)
        rows = json.loads(self.facts_file.read_text())
        return [Facts(*row)._replace(pack=pack) for row in rows]


def prepare(config: PrepareConfig) -> Preparation:
    """Writes `config.source` to `config.out` as a TFDS data set, or finds it written already.

    The data set has the splits `train` and `validation`, those that the config carves or adds,
    and the features `image` (encoded bytes), `label` and `file_name`. The folder appears when it
    is whole; after an interruption the same call goes on where it stopped. Its files are the same,
    byte for byte, however many workers wrote them and however often they were interrupted.

    Raises:
        BadInput: a source that is not one, a split without an image left, an `out` that holds
            something else, or something to be dropped when `on_bad` is `fail`.
        Failed: a worker process was killed.
    """
    workspace = atomic.neighbour(config.out)
    finished = _finished(config)
    if finished:
        shutil.rmtree(workspace, ignore_errors=True)
        return finished
    tfds.disable_progress_bar()
    source = open_source(config)
    pieces = _pieces(source, workspace, config)
    workspace.mkdir(parents=True, exist_ok=True)
    try:
        with atomic.locked(workspace), process_map(_workers(config, pieces)) as parallel:
            result = _prepare(config, source, pieces, parallel)
    except BadInput:
        shutil.rmtree(workspace)
        raise
    shutil.rmtree(workspace)
    return result


def _prepare(
    config: PrepareConfig, source: Source, pieces: list[Piece], parallel: Map
) -> Preparation:
    _run(parallel, "examining", _examine_piece, pieces)
    facts: dict[str, list[Facts]] = {split: [] for split in source.splits}
    for piece in pieces:
        facts[piece.split] += piece.facts()
    cleaned = clean(facts, config)
    divided = divide(cleaned.kept, config)
    _require_images(divided, cleaned, config)

    dataset = pieces[0].workspace / _digest(_settings(config), *(piece.stem for piece in pieces))
    dataset.mkdir(exist_ok=True)
    splits = {split: shards(dataset, split, images) for split, images in divided.items()}
    write = partial(write_shard, class_names=source.class_names)
    _run(parallel, "writing", write, [shard for listing in splits.values() for shard in listing])
    write_metadata(dataset, source.class_names, splits, f"Prepared from {config.source}.")

    classes = balance(cleaned.kept["train"], source.class_names)
    result = Preparation(
        out=str(config.out),
        source=config.source,
        classes=len(source.class_names),
        images={split: len(images) for split, images in divided.items()},
        class_balance=str(classes),
        found=cleaned.counts(),
        bad_files=[BadFile(f.key, f.reason()) for f in cleaned.dropped()],
    )
    _write_reports(dataset, config, result, facts, cleaned, classes)
    dataset.replace(config.out)
    return result


def _write_reports(
    dataset: Path,
    config: PrepareConfig,
    result: Preparation,
    facts: dict[str, list[Facts]],
    cleaned: Cleaning,
    classes: Balance,
) -> None:
    """The result, every finding, and the page of pictures, beside the shards."""
    images = {(split, image.key): image for split, listing in facts.items() for image in listing}

    def picture(name: tuple[str, str]) -> str:
        image = images[name]
        return thumbnail(image.encoded()) if image.size else image.thumbnail

    page = contact_sheet(f"What cleaning found in {config.source}", cleaned.findings, picture)
    # Not the folder's own name: the data set may be moved.
    told = {key: value for key, value in dataclasses.asdict(result).items() if key != "out"}
    for name, text in {
        REPORT: json.dumps({"config": _settings(config), "result": told}, indent=2),
        CLEANING: json.dumps(report(cleaned, classes), indent=2),
        CONTACT_SHEET: page,
    }.items():
        (dataset / name).write_text(text)


def _finished(config: PrepareConfig) -> Preparation | None:
    """The result of an earlier run of the same preparation, if `out` holds one."""
    if not config.out.exists():
        return None
    report_file = config.out / REPORT
    if report_file.is_file():
        written = json.loads(report_file.read_text())
        if written["config"] == _settings(config):
            result = written["result"]
            bad_files = [BadFile(**bad) for bad in result.pop("bad_files")]
            return Preparation(**result, out=str(config.out), bad_files=bad_files)
    raise BadInput(
        f"{str(config.out)!r} exists and is not this preparation of {config.source!r}; "
        "remove it or choose another --out"
    )


def _settings(config: PrepareConfig) -> dict[str, Any]:
    """All of a config that the data set depends on, as JSON has it."""
    settings = dataclasses.asdict(config)
    del settings["out"], settings["workers"]
    return json.loads(json.dumps(settings, default=str))


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]


def _pieces(source: Source, workspace: Path, config: PrepareConfig) -> list[Piece]:
    return [
        Piece(name, split[start : start + PIECE_IMAGES], workspace, config)
        for name, split in source.splits.items()
        for start in range(0, len(split), PIECE_IMAGES)
    ]


def _workers(config: PrepareConfig, pieces: list[Piece]) -> int:
    images = sum(len(piece.examples) for piece in pieces)
    return min(config.workers or os.cpu_count(), math.ceil(images / IMAGES_A_WORKER))


def _examine_piece(piece: Piece) -> Step:
    """Examines a slice of the source, unless that is done."""
    if not piece.facts_file.exists():
        listing = []
        with atomic.replacing(piece.pack) as partial_pack, partial_pack.open("wb") as pack:
            for example in piece.examples:
                facts, encoded = examine(example, piece.config)
                listing.append(facts._replace(offset=pack.tell()))
                pack.write(encoded)
        atomic.write_text(piece.facts_file, json.dumps(listing))
    listing = piece.facts()
    bad = sum(
        any(piece.config.handling_of(kind) == "drop" for kind in image.found) for image in listing
    )
    return Step(len(listing), bad)


def _require_images(
    divided: dict[str, list[Facts]], cleaned: Cleaning, config: PrepareConfig
) -> None:
    """Raises `BadInput` for a split that has no image."""
    empty = next((split for split, images in divided.items() if not images), None)
    if empty is None:
        return
    dropped = cleaned.dropped()
    why = f", {dropped[0].key} first ({dropped[0].reason()})" if dropped else ""
    raise BadInput(
        f"no image is left for the split {empty!r} of {config.source!r}, {len(dropped)} files were "
        f"dropped{why}; give more images or other fractions"
    )


class _ImagesPerSecond(ProgressColumn):
    """The speed of this run, without what an earlier one had finished."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:,.0f} images/s")


def _run(
    parallel: Map, title: str, function: Callable[[Any], Step], work: list[Piece] | list[Shard]
) -> None:
    """Does all the work and shows how far it is, where somebody is looking."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        _ImagesPerSecond(),
        TextColumn("{task.fields[bad]:,} bad"),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, disable=not console.is_terminal, transient=True
    ) as progress:
        task = progress.add_task(title, total=sum(map(len, work)), bad=0)
        bad = 0
        for step in parallel(function, work):
            bad += step.bad
            progress.update(task, advance=step.images, bad=bad)
