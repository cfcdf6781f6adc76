"""Networks side by side: each trained, evaluated, exported and timed, and a page about all of them.

comparison.yaml  what all of it was begun with
configs/         the config of each run
runs/            the runs; `evaluation/` in each is what `pipelines.evaluate` wrote
saved_models/    the exported models
results/         what was timed
report/          the page, and its tables
stages.jsonl     when it was worked on (see `pipelines.stage_log`)

Every step is a command in a process of its own, so that a network does not slow the next one down,
and each can be typed alone.
"""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple

from pipelines import atomic
from pipelines.command import dump, refuse_another
from pipelines.config import CompareConfig, ReportConfig
from pipelines.data.streams import class_names, open_dataset
from pipelines.errors import Failed
from pipelines.exporting.versions import latest_version
from pipelines.reporting.report import report
from pipelines.reporting.text import aligned
from pipelines.stage_log import logged
from pipelines.training.children import run_stage
from pipelines.training.run import Run

# What may differ when a comparison goes on.
CHANGEABLE = {"out", "data", "train.data", "train.run", "networks"}


class Place(NamedTuple):
    """Where everything of one network is.

    Args:
        config: of its run.
        run: its folder.
        shape: of the network, as the timing takes it: width, size_px, channels and num_classes.
        saved_model: the exported model's folder.
        results: what was timed.
    """

    network: str
    config: Path
    run: Path
    shape: dict[str, Any]
    saved_model: Path
    results: Path

    @property
    def evaluation(self) -> Path:
        return self.run / "evaluation"

    @property
    def timed(self) -> dict[str, str]:
        """What its row of the timings is known by."""
        return {"network": self.network, **{name: str(each) for name, each in self.shape.items()}}


class Step(NamedTuple):
    """A command for one network.

    Args:
        name: of the stage.
        arguments: of the command.
        done: whether it has been run to its end.
    """

    name: str
    arguments: Callable[[Place], list[object]]
    done: Callable[[Place], bool]


def _is_timed(place: Place) -> bool:
    file = place.results / "infer.csv"
    if not file.is_file():
        return False
    with file.open(newline="") as lines:
        return any(place.timed.items() <= row.items() for row in csv.DictReader(lines))


STEPS = (
    Step(
        "train",
        lambda place: ["--config", place.config],
        lambda place: Run(place.run).metrics() is not None,
    ),
    Step(
        "evaluate",
        lambda place: [place.run, "--out", place.evaluation],
        lambda place: place.evaluation.is_dir(),
    ),
    Step(
        "export",
        lambda place: [place.run, "--out", place.saved_model],
        lambda place: latest_version(place.saved_model) is not None,
    ),
    Step(
        "benchmark",
        lambda place: [
            "infer",
            place.network,
            *(part for name, each in place.shape.items() for part in (f"--{name}", each)),
            *("--out", place.results),
        ],
        _is_timed,
    ),
)


@dataclass(frozen=True)
class Comparison:
    """What `compare` came to.

    Args:
        out: its folder.
        evaluations: of each network, what `pipelines.evaluate` measured.
        page: the report.
        failure: what could not be done; empty where all could.
    """

    out: str
    evaluations: dict[str, dict[str, Any]]
    page: str
    failure: str

    def __str__(self) -> str:
        heads = ["network", "top-1", "top-5", "n"]
        rows = [
            [network, f"{each['top1']:.4f}", f"{each['top5']:.4f}", f"{each['n']:,}"]
            for network, each in self.evaluations.items()
        ]
        lines = [aligned([heads, *rows]), f"next: open {quote(self.page)} in a browser"]
        return "\n".join(lines)


def compare(config: CompareConfig) -> Comparison:
    """Does for each network what is not done yet, and writes the report.

    A network that fails is told, and the others go on.

    Raises:
        BadInput: no such data, or a folder that another comparison was begun in.
        Failed: no network could be trained.
        Stopped: a step was asked to stop.
    """
    num_classes = len(class_names(open_dataset(config.data)))
    with atomic.locked(config.out):
        refuse_another(config.out / "comparison.yaml", config, CHANGEABLE)
        atomic.write_text(config.out / "comparison.yaml", dump(config))
        with logged(config.out, "compare"):
            return _compare(config, [_place(config, name, num_classes) for name in config.names])


def _place(config: CompareConfig, network: str, num_classes: int) -> Place:
    run = config.of(network)
    file = config.out / "configs" / f"{network}.yaml"
    atomic.write_text(file, dump(run))
    models, results = config.out / "saved_models", config.out / "results"
    shape = {
        "width": run.width,
        "size_px": run.input.size_px,
        "channels": run.input.channels,
        "num_classes": num_classes,
    }
    return Place(network, file, run.run, shape, models / network, results)


def _compare(config: CompareConfig, places: list[Place]) -> Comparison:
    reasons = [reason for place in places if (reason := _run(place))]
    trained = [place for place in places if STEPS[0].done(place)]
    if not trained:
        raise Failed("; ".join(reasons))
    runs = [place.run for place in trained]
    written = report(ReportConfig(runs, config.out / "report", config.out / "results"))
    return Comparison(
        out=str(config.out),
        evaluations={
            place.network: json.loads((place.evaluation / "metrics.json").read_text())
            for place in trained
            if place.evaluation.is_dir()
        },
        page=written.page,
        failure="; ".join(reasons),
    )


def _run(place: Place) -> str:
    """Runs the steps of a network that are not done; why one failed, or nothing."""
    for step in STEPS:
        if not step.done(place):
            try:
                run_stage(step.name, step.arguments(place))
            except Failed as error:
                return str(error)
    return ""
