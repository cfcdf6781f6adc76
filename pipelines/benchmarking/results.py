"""A file of results: one row for each measurement, with all that it takes to repeat it."""

import csv
import dataclasses
import io
import json
import os
from dataclasses import MISSING, dataclass
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import Any

import tensorflow as tf

from pipelines import atomic
from pipelines.command import flat, parse
from pipelines.config import BenchmarkConfig, InputBenchmarkConfig
from pipelines.errors import BadInput
from pipelines.reporting.text import aligned
from pipelines.training.environment import environment

OWN_ENVIRONMENT = (
    *("processor", "cores", "memory_gib", "python", "tensorflow", "keras", "commit"),
)


@dataclass(frozen=True)
class Row:
    """One measurement. The columns are the same for all subjects; what one lacks is None, or empty.

    Args:
        measured_at: when it ended, UTC, in ISO 8601.
        subject: `train`, `infer`, `input` or `serve`.
        network: the network's name.
        width: how many times as many filters its layers have as published.
        size_px: side of its images.
        channels: of its images.
        num_classes: width of its classifier.
        batch_size: images in a step (`train`, `input`), a call (`infer`) or a request (`serve`).
        precision: what layers compute in.
        engine: what computed an exported network.
        clients: that sent requests at a time.
        stage: of the stream (`input`), as `pipelines.data.doctor` has them.
        images_per_s: the median of the rounds.
        noise: how far from it the same command's lands, as a share of it, with 99% confidence
            (see `pipelines.benchmarking.rounds`).
        p50_ms: half of the steps, calls or requests took no longer.
        p99_ms: 99 of 100 of them took no longer.
        refused: requests that were, of all rounds.
        memory_mib: the most that the process held (`serve`), or what that is above what TensorFlow
            took before the network (`train`, `infer`); the largest of the rounds.
        parameters: of the network, as its card counts them.
        gmacs: 10^9 multiply-accumulates of one image, forward.
        ceiling_gflops: 10^9 operations a second in a matrix product, two for a multiply-accumulate;
            the largest of the rounds.
        utilisation: the operations that the images took, as a share of the ceiling's; training an
            image counts as three forward passes.
        device: where the network ran.
        processor: the machine's.
        cores: of it.
        memory_gib: of the machine.
        python: version.
        tensorflow: version.
        keras: version.
        commit: of this package, `-dirty` where files differ from it.
        command: repeats the row.
    """

    measured_at: str
    subject: str
    network: str
    width: float
    size_px: int
    channels: str
    num_classes: int
    batch_size: int
    precision: str
    engine: str | None
    clients: int | None
    stage: str | None
    images_per_s: float
    noise: float | None
    p50_ms: float | None
    p99_ms: float | None
    refused: int | None
    memory_mib: float
    parameters: int
    gmacs: float
    ceiling_gflops: float | None
    utilisation: float | None
    device: str
    processor: str
    cores: int
    memory_gib: float
    python: str
    tensorflow: str
    keras: str
    commit: str | None
    command: str


COLUMNS = [field.name for field in dataclasses.fields(Row)]


def machine() -> dict[str, Any]:
    """The columns of a row that are the machine's, and the time."""
    measured_on = environment()
    gpus = tf.config.list_physical_devices("GPU")
    names = [tf.config.experimental.get_device_details(gpu)["device_name"] for gpu in gpus]
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": ", ".join(names) or "CPU",
        **{name: measured_on[name] for name in OWN_ENVIRONMENT},
    }


def command_line(subject: str, config: BenchmarkConfig | InputBenchmarkConfig) -> str:
    """What to type for the same measurement: all that differs from the defaults."""
    given = flat(config)
    required = [
        field.name
        for field in dataclasses.fields(config)
        if field.default is field.default_factory is MISSING
    ]
    needed = [f"--{name}={given[name]}" for name in {*required, "network"}]
    usual = flat(parse(type(config), needed))
    words = ["python", "-m", "pipelines.benchmark", subject, given.pop("network")]
    for name, value in given.items():
        if name in required or value != usual[name]:
            words += [f"--{name}", value if isinstance(value, str) else json.dumps(value)]
    return " ".join(map(quote, words))


def results_file(subject: str, folder: Path) -> Path:
    """Where the rows of a subject are.

    Raises:
        BadInput: nothing can be written there, or a file is there that has other columns.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise BadInput(f"{str(folder)!r} cannot be written to; give another --out")
    file = folder / f"{subject}.csv"
    if file.is_file():
        with file.open(newline="") as opened:
            columns = next(csv.reader(opened), [])
        if columns != COLUMNS:
            differing = sorted({*columns} ^ {*COLUMNS}) or ["their order"]
            raise BadInput(
                f"{str(file)!r} has other columns than this version writes "
                f"({', '.join(differing)} differ); move it away, or give another --out"
            )
    return file


def append(rows: list[Row], folder: Path) -> Path:
    """Adds rows of one subject to its file, all or none; several processes may.

    Raises:
        BadInput: the file has other columns.
    """
    file = results_file(rows[0].subject, folder)
    with atomic.in_turn(folder):
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        if not file.is_file():
            writer.writeheader()
        writer.writerows(map(dataclasses.asdict, rows))
        before = file.read_text() if file.is_file() else ""
        # An editor may have taken the end of the last line.
        before += "\n" if before and not before.endswith("\n") else ""
        atomic.write_text(file, before + text.getvalue())
    return file


@dataclass(frozen=True)
class Results:
    """What a benchmark measured: the rows that it added to a file."""

    file: str
    rows: list[Row]

    def __str__(self) -> str:
        head = ("", "px", "batch", "images/s", "noise", "p50 ms", "p99 ms", "MiB", "parameters")
        table = [(*head, "GMACs", "utilisation"), *map(_cells, self.rows)]
        commands = "\n".join(f"  {row.command}" for row in self.rows)
        return f"{aligned(table)}\nadded to {self.file}; to repeat a row:\n{commands}"


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.network,
        str(row.size_px),
        str(row.batch_size),
        f"{row.images_per_s:,.1f}",
        f"{row.noise:.1%}",
        f"{row.p50_ms:.2f}",
        f"{row.p99_ms:.2f}",
        f"{row.memory_mib:,.0f}",
        f"{row.parameters:,}",
        f"{row.gmacs:.3f}",
        f"{row.utilisation:.1%}",
    )
