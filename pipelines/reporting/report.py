"""The report stage: runs -> one page that needs nothing else, and its tables beside it."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from pipelines import atomic
from pipelines.config import ReportConfig
from pipelines.errors import BadInput
from pipelines.reporting.contents import Contents, contents
from pipelines.reporting.known import Known, read_runs
from pipelines.reporting.page import page
from pipelines.reporting.style import STYLE

PAGE = "index.html"
TABLES = ("comparison", "winners", "recipes", "stages")
_FILES = {PAGE, *(f"{name}.{suffix}" for name in TABLES for suffix in ("csv", "md"))}


@dataclass(frozen=True)
class Report:
    """What `report` wrote.

    Args:
        page: the HTML file.
        page_bytes: its size.
        runs: the names of the runs, as on the page.
        missing: by run and stage, the command of what was not run.
        next: the next command.
    """

    page: str
    page_bytes: int
    runs: list[str]
    missing: dict[str, dict[str, str]]
    next: str

    def __str__(self) -> str:
        gaps = [
            f"not run: {stage} of {run}: {command}"
            for run, commands in self.missing.items()
            for stage, command in commands.items()
        ]
        return "\n".join(
            [
                f"{self.page}: {', '.join(self.runs)} on one page of {self.page_bytes / 1e6:.1f} "
                "MB, to open in a browser; the tables beside it, as .csv and .md",
                *gaps,
                f"next: {self.next}",
            ]
        )


def report(config: ReportConfig) -> Report:
    """Reads what runs and the stages after them left, and writes it side by side.

    Raises:
        BadInput: one of them is no run, `out` is there and no report, or another report is just
            written to it.
    """
    _require_replaceable(config.out)
    runs = read_runs(config.runs, config.results)
    _publish(contents(runs), config.out.resolve())
    missing = {known.name: known.missing for known in runs if known.missing}
    return Report(
        page=str(config.out / PAGE),
        page_bytes=(config.out / PAGE).stat().st_size,
        runs=[known.name for known in runs],
        missing=missing,
        next=_next(runs, missing),
    )


def _publish(written: Contents, out: Path) -> None:
    """Writes a report; one that is there is removed once the new one has its place."""
    whole, aside = (out.with_name(f".{state}-{out.name}") for state in ("whole", "replaced"))
    with atomic.locked(out):
        # What a killed process left.
        shutil.rmtree(whole, ignore_errors=True)
        with atomic.replacing(whole) as folder:
            folder.mkdir()
            _write(written, folder)
        shutil.rmtree(aside, ignore_errors=True)
        out.rename(aside)
        whole.rename(out)
        shutil.rmtree(aside, ignore_errors=True)


def _write(written: Contents, folder: Path) -> None:
    (folder / PAGE).write_text(page(written.title, written.body, STYLE))
    for table in written.tables:
        (folder / f"{table.name}.csv").write_text(table.csv())
        (folder / f"{table.name}.md").write_text(table.markdown())


def _require_replaceable(out: Path) -> None:
    """Refuses to take the place of anything but a report, with what file managers leave in it."""
    if not out.exists():
        return
    others = sorted(filter(_is_foreign, out.iterdir())) if out.is_dir() else [out]
    if others:
        raise BadInput(
            f"out is {str(out)!r}, which has {others[0].name!r} and is no report; choose another "
            "--out"
        )
    if out.resolve() == Path.cwd():
        raise BadInput(f"out is {str(out)!r}, the folder you are in; choose another --out")


def _is_foreign(path: Path) -> bool:
    return path.name not in _FILES and not (path.is_file() and path.name.startswith("."))


def _next(runs: list[Known], missing: dict[str, dict[str, str]]) -> str:
    """What was not run first, and then a server of what was exported."""
    for commands in missing.values():
        return next(iter(commands.values()))
    return f"python -m pipelines.serve {quote(str(runs[0].export.parent.parent))}"
