"""The prepare stage: any source -> a TFDS data set on disk, every image known to decode."""

import dataclasses
import io
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import tensorflow as tf
import tensorflow_datasets as tfds
from rich.console import Console
from rich.progress import track

from pipelines import atomic
from pipelines.command import dump
from pipelines.config import PrepareConfig
from pipelines.data.images import decode
from pipelines.data.sources import Example, Source, hold_out, open_source
from pipelines.errors import BadInput

REPORT = "preparation.json"


@dataclass(frozen=True)
class BadFile:
    """A file that was left out, and why."""

    key: str
    reason: str


@dataclass(frozen=True)
class Preparation:
    """What `prepare` did: the folder, its classes, images a split, and what was left out."""

    out: str
    source: str
    classes: int
    images: dict[str, int]
    bad_files: list[BadFile]

    def __str__(self) -> str:
        counts = ", ".join(f"{count:,} {split}" for split, count in self.images.items())
        lines = [f"prepared {self.out}: {counts} images in {self.classes} classes"]
        if self.bad_files:
            lines.append(f"left out {len(self.bad_files)} files that do not decode:")
            lines += [f"  {bad.key}: {bad.reason}" for bad in self.bad_files]
        lines.append(f"next: python -m pipelines.train {quote(self.out)} --network resnet18")
        return "\n".join(lines)


def prepare(config: PrepareConfig) -> Preparation:
    """Writes `config.source` to `config.out` as a TFDS data set, or finds it written already.

    The data set has the splits `train` and `validation` and the features `image` (the file's own
    bytes), `label` and `file_name`. Files that do not decode are left out and named. The folder
    appears when it is whole.

    Raises:
        BadInput: a source that is not one, no image that decodes, or an `out` that holds
            something else.
    """
    finished = _finished(config)
    if finished:
        return finished
    tfds.disable_progress_bar()
    source = hold_out(open_source(config.source), config.holdout_fraction)
    bad_files: list[BadFile] = []
    with atomic.scratch(config.out) as workspace:
        builder = _write(source, config, workspace, bad_files)
        result = Preparation(
            out=str(config.out),
            source=config.source,
            classes=len(source.class_names),
            images={name: split.num_examples for name, split in builder.info.splits.items()},
            bad_files=bad_files,
        )
        report = {"config": dump(config), "result": dataclasses.asdict(result)}
        (builder.data_path / REPORT).write_text(json.dumps(report, indent=2))
        builder.data_path.replace(config.out)
    return result


def _write(
    source: Source, config: PrepareConfig, workspace: Path, bad_files: list[BadFile]
) -> tfds.core.DatasetBuilder:
    """Writes a TFDS data set below `workspace`; files that do not decode go to `bad_files`."""
    counts = dict.fromkeys(source.splits, 0)
    records = {
        name: _records(name, split(), source.expected[name], bad_files, counts)
        for name, split in source.splits.items()
    }
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(),
            "label": tfds.features.ClassLabel(names=source.class_names),
            "file_name": tfds.features.Text(),
        }
    )
    try:
        # TFDS reports on standard output, which is this command's result.
        with redirect_stdout(io.StringIO()):
            return tfds.dataset_builders.store_as_tfds_dataset(
                name="images",
                version="1.0.0",
                data_dir=workspace,
                features=features,
                split_datasets=records,
                description=f"Prepared from {config.source}.",
            )
    except AssertionError as error:
        empty = [name for name, count in counts.items() if not count]
        if not empty:
            raise
        first = "".join(f", {bad.key} first ({bad.reason})" for bad in bad_files[:1])
        raise BadInput(
            f"{empty[0]} of {config.source!r} has no image that decodes: {len(bad_files)} files "
            f"do not{first}; a split held out by content grows with holdout_fraction"
        ) from error


def _finished(config: PrepareConfig) -> Preparation | None:
    """The result of an earlier run of the same preparation, if `out` holds one."""
    if not config.out.exists():
        return None
    report_file = config.out / REPORT
    if report_file.is_file():
        report = json.loads(report_file.read_text())
        if report["config"] == dump(config):
            result = report["result"]
            bad_files = [BadFile(**bad) for bad in result.pop("bad_files")]
            return Preparation(**result, bad_files=bad_files)
    raise BadInput(
        f"{str(config.out)!r} exists and is not this preparation of {config.source!r}; "
        "remove it or choose another --out"
    )


def _records(
    name: str,
    examples: Iterable[Example],
    expected: int,
    bad_files: list[BadFile],
    counts: dict[str, int],
) -> Iterator[tuple[str, dict[str, Any]]]:
    """A split's images that decode, as TFDS wants them, counted; the others go to `bad_files`."""
    console = Console(stderr=True)
    for example in track(
        examples,
        f"{name:<10}",
        total=expected,
        console=console,
        disable=not console.is_terminal,
        transient=True,
    ):
        reason = _why_not_decodable(example)
        if reason:
            bad_files.append(BadFile(example.key, reason))
        else:
            counts[name] += 1
            yield (
                example.key,
                {"image": example.encoded, "label": example.label, "file_name": example.key},
            )


def _why_not_decodable(example: Example) -> str | None:
    """What the decoder of the training stream has against an image; None if it takes it."""
    if not example.encoded:
        return "empty, or it cannot be read"
    try:
        decode(tf.constant(example.encoded), channels=3)
    except tf.errors.InvalidArgumentError as error:
        return re.sub(r"{{.*?}} | \[Op:.*", "", error.message.partition("\n")[0])
    return None
