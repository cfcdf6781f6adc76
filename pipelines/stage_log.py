"""`stages.jsonl`: what was done to a folder, when, and how long it took.

Each stage leaves two lines in the folder that it worked on, or from: one when it begins, and one
when it ends, with its times. A stage that was killed has the first alone. Prepared data, runs and
searches have such a file; `pipelines.report` draws from it where the time went.
"""

import json
import os
import resource
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from pipelines.command import program
from pipelines.errors import Stopped

STAGES = "stages.jsonl"


@dataclass(frozen=True)
class StageRecord:
    """One time that a stage worked on a folder.

    Args:
        stage: `prepare`, `tune`, `train`, `evaluate` or `export`.
        command: as it was typed.
        began: when; a time that knows its zone.
        wall_s: how long it took; None where it was killed.
        cpu_s: of the process and those it started, in it and in the operating system.
        ended: `done`, `stopped` or `failed`; None where it was killed.
        out: what it wrote elsewhere.
    """

    stage: str
    command: str
    began: datetime
    wall_s: float | None = None
    cpu_s: float | None = None
    ended: str | None = None
    out: Path | None = None


@contextmanager
def logged(folder: Path | None, stage: str, out: Path | None = None) -> Iterator[None]:
    """Leaves a record of what is done inside, as far as the folder is there and can be written to.

    Args:
        folder: what the stage works on; None leaves no record.
        stage: its name.
        out: what it writes elsewhere; told as the way from `folder` to it, so that both may move.
    """
    if folder is None:
        yield
        return
    way = out and Path(os.path.relpath(out, folder))
    record = StageRecord(stage, _command(), datetime.now(UTC), out=way)
    began_s, cpu_s = time.monotonic(), _cpu_s()
    _append(folder, record)
    ended = "failed"
    try:
        yield
        ended = "done"
    except (Stopped, KeyboardInterrupt):
        ended = "stopped"
        raise
    finally:
        wall_s, cpu_s = time.monotonic() - began_s, _cpu_s() - cpu_s
        _append(folder, replace(record, wall_s=wall_s, cpu_s=cpu_s, ended=ended))


def read_stages(folder: Path) -> list[StageRecord]:
    """What was done to a folder, in the order of its beginning."""
    records = {}
    file = folder / STAGES
    for line in file.read_text().splitlines() if file.is_file() else ():
        # A killed process may have left a line in part.
        with suppress(ValueError):
            told = json.loads(line)
            began = datetime.fromisoformat(told["began"])
            out = told["out"] and Path(os.path.normpath(folder / told["out"]))
            records[told["stage"], began] = StageRecord(**told | {"began": began, "out": out})
    return sorted(records.values(), key=lambda record: record.began)


def _append(folder: Path, record: StageRecord) -> None:
    line = json.dumps(asdict(record), default=str) + "\n"
    with suppress(OSError), (folder / STAGES).open("ab+") as file:
        # What a killed process left in part is a line of its own.
        if file.seek(0, os.SEEK_END) and not _ends_a_line(file):
            line = f"\n{line}"
        file.write(line.encode())


def _ends_a_line(file: BinaryIO) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read() == b"\n"


def _command() -> str:
    """As a person types it, who reads the result."""
    return shlex.join([*program().split(), *(each for each in sys.argv[1:] if each != "--json")])


def _cpu_s() -> float:
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)
