"""The prepare stage: any source -> a clean TFDS data set on disk, every image known to decode.

Three steps, the first and the last by workers. Pieces of the source are examined; each leaves a
pack (the bytes to keep) and its facts. From the facts alone it is decided which image goes where.
Then the shards are written from the packs. Packs and shards lie in a hidden neighbour
of the output, under names that depend on all that they were made from: what an earlier attempt
finished is found there, what it finished for another purpose is not. The data set is moved out of
there when it is whole.
"""

import dataclasses
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import tensorflow_datasets as tfds

from pipelines import atomic
from pipelines.config import PrepareConfig
from pipelines.data.cleaning import Balance, Cleaning, Facts, balance, clean, report, thumbnail
from pipelines.data.contact_sheet import contact_sheet
from pipelines.data.division import divide, training_splits
from pipelines.data.pieces import Piece, cut, digest
from pipelines.data.sources import Source, open_source
from pipelines.data.workers import Workers, workers_for
from pipelines.errors import BadInput
from pipelines.stage_log import logged

REPORT = "preparation.json"
CLEANING = "cleaning.json"
CONTACT_SHEET = "contact_sheet.html"

# Of the bad files and of the empty classes, those that a person is shown.
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
        empty_classes: of which no image is in `train`.
    """

    out: str
    source: str
    classes: int
    images: dict[str, int]
    class_balance: str
    found: dict[str, dict[str, int]]
    bad_files: list[BadFile]
    empty_classes: list[str] = dataclasses.field(default_factory=list)

    def __str__(self) -> str:
        counts = ", ".join(f"{count:,} {split}" for split, count in self.images.items())
        lines = [f"prepared {self.out}: {counts} images in {_counted(self.classes, 'class')}"]
        lines.append(self.class_balance)
        if self.empty_classes:
            named = _first(list(map(repr, self.empty_classes)), ", ")
            count = _counted(len(self.empty_classes), "class")
            lines.append(f"no image of {count} is left in train: {named}")
        done = {"drop": "dropped", "rewrite": "rewritten", "keep": "kept"}
        for kind, handlings in self.found.items():
            told = ", ".join(f"{count:,} {done[h]}" for h, count in handlings.items())
            lines.append(f"  {kind:<20}{told}")
        if self.bad_files:
            lines.append(f"left out {_counted(len(self.bad_files), 'file')}:")
            lines.append(_first([f"  {bad.key}: {bad.reason}" for bad in self.bad_files], "\n"))
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


def prepare(config: PrepareConfig) -> Preparation:
    """Writes `config.source` to `config.out` as a TFDS data set, or finds it written already.

    The data set has the splits `train` and `validation`, those that the config carves or adds,
    and the features `image` (encoded bytes), `label` and `file_name`. The folder appears when it
    is whole; after an interruption the same call goes on where it stopped. Its files are the same,
    byte for byte, however many processes wrote them and however often they were interrupted, but
    for the log of when that was (`pipelines.stage_log`); `pipelines.data.beam` says what is the
    same where Apache Beam wrote them.

    Raises:
        BadInput: a source that is not one, a split without an image left, an `out` that holds
            something else, something to be dropped when `on_bad` is `fail`, or no such runner.
        Failed: a worker process was killed, or the runner gave up.
    """
    # Absolute: workers may run in another folder.
    workspace = atomic.neighbour(config.out.absolute())
    if finished := _finished(config):
        shutil.rmtree(workspace, ignore_errors=True)
        return finished
    with logged(config.out, "prepare"):
        return _prepare(config, workspace)


def _prepare(config: PrepareConfig, workspace: Path) -> Preparation:
    tfds.disable_progress_bar()
    source = open_source(config)
    pieces = cut(source, workspace, config)
    with workers_for(config, pieces) as workers, atomic.locked(workspace):
        try:
            # Another process may have finished it since.
            result = _finished(config) or _write(config, source, pieces, workers)
        except BadInput:
            shutil.rmtree(workspace, ignore_errors=True)
            raise
        shutil.rmtree(workspace, ignore_errors=True)
    return result


def _write(
    config: PrepareConfig, source: Source, pieces: list[Piece], workers: Workers
) -> Preparation:
    workers.examine(pieces)
    facts: dict[str, list[Facts]] = {split: [] for split in source.splits}
    for piece in pieces:
        facts[piece.split] += piece.facts()
    divided = divide(facts, config)
    cleaned = clean(divided, source.splits.keys() - {"train"}, config)
    _require_images(cleaned, config)

    stems = (piece.stem for piece in pieces)
    folder = pieces[0].workspace / digest(type(workers), _settings(config), *stems)
    folder.mkdir(exist_ok=True)
    description = f"Prepared from {config.source}."
    dataset = workers.write(folder, cleaned.kept, source.class_names, description)

    trained = [image for split in training_splits(config) for image in cleaned.kept[split]]
    classes = balance(trained, source.class_names)
    result = Preparation(
        out=str(config.out),
        source=config.source,
        classes=len(source.class_names),
        images={split: len(images) for split, images in cleaned.kept.items()},
        class_balance=str(classes),
        found=cleaned.counts(),
        bad_files=[BadFile(f.key, f.reason()) for f in cleaned.dropped()],
        empty_classes=classes.empty_classes,
    )
    _write_reports(dataset, config, result, divided, cleaned, classes)
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
    if Path(config.source).resolve() == config.out.resolve():
        raise BadInput(
            f"out is {str(config.out)!r}, the source itself; choose another --out, such as "
            f"data/{config.out.resolve().name}"
        )
    raise BadInput(
        f"{str(config.out)!r} exists and is not this preparation of {config.source!r}; "
        "remove it or choose another --out"
    )


def _settings(config: PrepareConfig) -> dict[str, Any]:
    """All of a config that the data set depends on, as JSON has it."""
    settings = dataclasses.asdict(config)
    for field in ("out", "workers", "runner", "beam_options"):
        del settings[field]
    return json.loads(json.dumps(settings, default=str))


def _require_images(cleaned: Cleaning, config: PrepareConfig) -> None:
    """Raises `BadInput` for a split that has no image."""
    empty = next((split for split, images in cleaned.kept.items() if not images), None)
    if empty is None:
        return
    dropped = [finding for finding in cleaned.dropped() if finding.split == empty]
    why = f", {dropped[0].key} first ({dropped[0].reason()})" if dropped else ""
    raise BadInput(
        f"no image is left for the split {empty!r} of {config.tests.get(empty, config.source)!r}, "
        f"{_counted(len(dropped), 'file')} of it dropped{why}; give more images or other fractions"
    )


def _counted(count: int, noun: str) -> str:
    """`1 file`, `2 files`, `3 classes`."""
    ending = "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{ending if count != 1 else ''}"


def _first(items: list[str], separator: str) -> str:
    """The first items, and how many more there are."""
    more = [f"and {len(items) - _SHOWN:,} more"] if len(items) > _SHOWN else []
    return separator.join(items[:_SHOWN] + more)
