"""The results of a search: how its trials compare, what mattered, and what became of the best."""

import csv
import dataclasses
import io
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from shlex import quote
from typing import Any

from matplotlib import style
from matplotlib.figure import Figure

from pipelines import atomic
from pipelines.reporting.page import page, picture_by_theme, png, sections, table
from pipelines.reporting.text import aligned
from tuning.config import STAGES, ResultsConfig
from tuning.importance import MIN_TRIALS, Importances, importances
from tuning.plots import parallel_coordinates, top1_over_epochs
from tuning.records import Budget, Records, Trial, read_records
from tuning.stages import TEST_SPLIT, Outcomes, go_on, source

SHOWN = 20
PICTURES: dict[str, tuple[str, Callable[[Records], Figure]]] = {
    "parallel_coordinates.png": ("What was chosen, and what came of it", parallel_coordinates),
    "top1_over_epochs.png": ("Top-1 over the search", top1_over_epochs),
}


@dataclass(frozen=True)
class Results:
    """What a search came to.

    Args:
        search: its folder.
        tuner: what chose.
        full_epochs: what the config that it ends in trains for.
        fields: those in which trials differ.
        ranking: completed trials; the longest first, and among equals the best.
        others: trials that failed or are unfinished.
        best: of the trials with all their epochs.
        source: the trial that best.yaml has its values from; None before there is one.
        importances: None while too few trials have completed.
        budget: what it took.
        outcomes: what the stages that followed printed, by name.
        page: the HTML file.
    """

    search: str
    tuner: str
    full_epochs: int
    fields: list[str]
    ranking: list[Trial]
    others: list[Trial]
    best: Trial | None
    source: Trial | None
    importances: Importances | None
    budget: Budget
    outcomes: Outcomes
    page: str

    def __str__(self) -> str:
        more = len(self.ranking) - SHOWN
        parts = [
            f"{self.search}: {self.tally}",
            aligned([self.heads, *self.rows[:SHOWN]]) if self.ranking else "",
            f"and {more:,} more" if more > 0 else "",
            *self.remarks,
            self.final,
            f"see {self.page}; the table is leaderboard.csv beside it",
            self._next,
        ]
        return "\n".join(part for part in parts if part)

    @property
    def tally(self) -> str:
        """How many trials ended how."""
        states = [trial.status for trial in (*self.ranking, *self.others)]
        counts = {state: states.count(state) for state in ("completed", "failed", "unfinished")}
        told = ", ".join(f"{count:,} {state}" for state, count in counts.items() if count)
        return f"{self.tuner} search, trials: {told or 'none yet'}"

    @property
    def heads(self) -> list[str]:
        """Of the leaderboard; a field by its last word where that says which one it is."""
        words = [name.rpartition(".")[2] for name in self.fields]
        short = [
            name if word == "name" or words.count(word) > 1 else word
            for name, word in zip(self.fields, words, strict=True)
        ]
        return ["rank", "trial", "top-1", "epochs", "went on from", *short]

    @property
    def rows(self) -> list[list[str]]:
        """The leaderboard."""
        return [
            [
                str(rank),
                trial.name,
                f"{trial.top1:.4f}",
                f"{trial.epochs} of {self.full_epochs}",
                trial.continues or "-",
                *(_told(trial.values.get(field)) for field in self.fields),
            ]
            for rank, trial in enumerate(self.ranking, start=1)
        ]

    @property
    def remarks(self) -> list[str]:
        """What there is to say below the leaderboard, a line each."""
        if self.best:
            best = (
                f"best of those with all {self.full_epochs} epochs: trial {self.best.name}, "
                f"{_numbers('minival', dataclasses.asdict(self.best))}"
            )
        else:
            best = f"no trial has completed all {self.full_epochs} epochs yet"
        few = f"importances: fewer than {MIN_TRIALS} completed trials that differ"
        told = [best, str(self.importances or few), str(self.budget)]
        return [*_failures(self.others), *_unfinished(self.others), *told]

    @property
    def final(self) -> str:
        """The numbers of the best config, trained and measured; empty before that."""
        rows = {
            "the trial": _numbers("minival", self.source and dataclasses.asdict(self.source)),
            "from scratch": _numbers("minival", self.outcomes.get("train")),
            "in the end": _numbers(TEST_SPLIT, self.outcomes.get("evaluate")),
            "SavedModel": self.outcomes.get("export", {}).get("saved_model", ""),
        }
        told = [f"  {key:<14}{value}" for key, value in rows.items() if value]
        return "\n".join(["best.yaml:", *told]) if self.outcomes else ""

    @property
    def _next(self) -> str:
        left = [stage for stage in STAGES if stage not in self.outcomes]
        if not left:
            return "next: python -m pipelines.serve saved_models"
        then = ",".join(left)
        goes_on = f"next: python -m tuning.results {quote(self.search)} --then {then}"
        return goes_on if self.source else ""


def report(config: ResultsConfig) -> Results:
    """Reads a search, goes on with its best config if asked to, and writes `results/` in it.

    Raises:
        BadInput: there is no search, or no best config to go on with yet.
        Failed: a stage did not end well.
        Stopped: a stage was asked to stop.
    """
    records = read_records(config.search)
    outcomes = go_on(config.search, config.stages)
    folder = config.search / "results"
    results = Results(
        search=str(config.search),
        tuner=records.config.tuner,
        full_epochs=records.config.train.epochs,
        fields=records.varying,
        ranking=records.ranking,
        others=[trial for trial in records.trials if trial.status != "completed"],
        best=records.best,
        source=source(config.search, records.ranking),
        importances=importances(records),
        budget=records.budget,
        outcomes=outcomes,
        page=str(folder / "index.html"),
    )
    _write(results, records, folder)
    return results


def _write(results: Results, records: Records, folder: Path) -> None:
    """The leaderboard as CSV, the pictures, and the page that has all."""
    atomic.write_text(folder / "leaderboard.csv", _csv(results, list(records.fields)))
    contents = [("Trials", table(results.heads, results.rows) + _paragraphs(results))]
    for name, (head, draw) in PICTURES.items() if results.ranking else ():
        with atomic.replacing(folder / name) as partial:
            partial.write_bytes(png(draw(records)))
        contents.append((head, _by_theme(draw, records)))
    title = f"Search {results.search}"
    lead = f"<p>{escape(results.tally)}</p>\n"
    atomic.write_text(folder / "index.html", page(title, lead + sections(contents)))


def _by_theme(draw: Callable[[Records], Figure], records: Records) -> str:
    light = png(draw(records), transparent=True)
    with style.context("dark_background"):
        return picture_by_theme(light, png(draw(records), transparent=True))


def _paragraphs(results: Results) -> str:
    lines = [*results.remarks, *results.final.splitlines()]
    return "\n".join(f"<p>{escape(line)}</p>" for line in lines)


def _csv(results: Results, fields: list[str]) -> str:
    """A row a trial: those ranked first, then the others."""
    heads = ["rank", "trial", "status", "top1", "n", "epochs", "own_epochs", "last_epoch"]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*heads, "continues", "reason", *fields])
    ranks = [*range(1, len(results.ranking) + 1), *[None] * len(results.others)]
    for rank, t in zip(ranks, (*results.ranking, *results.others), strict=True):
        told = [rank, t.name, t.status, t.top1, t.n, t.epochs, t.own_epochs, t.last_epoch]
        writer.writerow([*told, t.continues, t.reason, *(t.values.get(f) for f in fields)])
    return file.getvalue()


def _failures(trials: list[Trial]) -> list[str]:
    """A line for each reason, with those that failed for it."""
    names: dict[str | None, list[str]] = defaultdict(list)
    for trial in trials:
        if trial.status == "failed":
            names[trial.reason].append(trial.name)
    return [f"failed: {', '.join(of_it)}: {reason}" for reason, of_it in names.items()]


def _unfinished(trials: list[Trial]) -> list[str]:
    """A line for each that runs, or was left by a search that was stopped."""
    return [
        f"unfinished: {trial.name}: {trial.epochs} of {trial.last_epoch} epochs"
        + ("" if trial.top1 is None else f", top-1 {trial.top1:.4f} so far")
        for trial in trials
        if trial.status == "unfinished"
    ]


def _numbers(split: str, measured: dict[str, Any] | None) -> str:
    """An accuracy with the images that it is of; empty for none."""
    if not measured:
        return ""
    return f"top-1 {measured['top1']:.4f} on {split}, n = {measured['n']}"


def _told(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
