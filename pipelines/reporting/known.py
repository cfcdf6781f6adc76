"""What is known of a run: all that it and the stages after it left, and the network as built."""

import csv
import json
import shlex
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import keras

import keras_zoo
from keras_zoo import macs
from keras_zoo.registry import Card
from keras_zoo.structure import Chain, chain
from pipelines.config import TrainConfig
from pipelines.data.preparation import REPORT as PREPARATION
from pipelines.exporting.card import read_card
from pipelines.exporting.export import SAVED_MODEL
from pipelines.stage_log import StageRecord, read_stages
from pipelines.training.model import num_parameters
from pipelines.training.run import Run

# Of results/infer.csv, what fits a run.
INFERENCE = "infer.csv"
# In the folder of a search.
SEARCHED = "best.yaml"
_EVALUATED, _EXPORTED = "metrics.json", "model_card.json"
# Where the evaluation of a run is, if it is from before there was a log of stages.
_EVALUATION = "evaluation"


@dataclass(frozen=True)
class Blueprint:
    """A network as a run built it, without weights.

    Args:
        parameters: as its card counts them.
        macs: multiply-accumulates for one image of the run's size.
        chain: what computes in it.
    """

    parameters: int
    macs: int
    chain: Chain


@dataclass(frozen=True)
class Known:
    """A run, and what the later stages made of it. What there is not is None or empty.

    Args:
        folder: of the run.
        name: the folder's, or its whole path where another run's folder is called the same.
        config: what it was started with.
        class_names: in the order of the logits.
        splits: by name, the images, files and bytes of the data set's splits.
        environment: versions, commit and hardware of its beginning.
        metrics: the run's own, once it is finished.
        history: a row an epoch.
        steps: a row for about each second of training.
        stages: what was done to the run.
        evaluation: the newest evaluation that wrote a folder.
        export: the newest exported version that is there.
        results: the folder of `infer.csv`.
        inference: its newest row of the same network's SavedModel at batch 1 on such a machine.
        blueprint: the network.
    """

    folder: Path
    name: str
    config: TrainConfig
    class_names: list[str]
    splits: dict[str, dict[str, int]]
    environment: dict[str, Any]
    metrics: dict[str, Any] | None
    history: list[dict[str, float]]
    steps: list[dict[str, Any]]
    stages: list[StageRecord]
    evaluation: Path | None
    export: Path | None
    results: Path
    inference: dict[str, str] | None
    blueprint: Blueprint

    @property
    def card(self) -> Card:
        """The network's."""
        return keras_zoo.card(self.config.network)

    @cached_property
    def evaluated(self) -> dict[str, Any] | None:
        """The evaluation's figures, as `metrics.json` has them."""
        return self.evaluation and json.loads((self.evaluation / _EVALUATED).read_text())

    @cached_property
    def model_card(self) -> dict[str, Any] | None:
        """Of the exported version."""
        return self.export and read_card(self.export)

    @property
    def data(self) -> str:
        """What tells data sets apart: classes, and the size of each split."""
        return json.dumps([self.class_names, self.splits])

    def seconds(self, stage: str) -> tuple[float, float] | None:
        """Wall and processor time of all that ended of a stage, in seconds."""
        ended = [each for each in self.stages if each.stage == stage and each.wall_s is not None]
        if not ended:
            return None
        return sum(each.wall_s for each in ended), sum(each.cpu_s for each in ended)

    def killed(self, stage: str) -> int:
        """How often a stage began and left no end, nor times."""
        return sum(each.stage == stage and each.wall_s is None for each in self.stages)

    @property
    def searches(self) -> list[Path]:
        """The folders of those whose best config the run was trained with, as it was typed."""
        trainings = [each.command for each in self.stages if each.stage == "train"]
        pairs = [pair for command in trainings for pair in pairwise(shlex.split(command))]
        configs = [Path(given) for option, given in pairs if option == "--config"]
        return [file.resolve().parent for file in configs if file.name == SEARCHED]

    @property
    def missing(self) -> dict[str, str]:
        """By stage that was not run, or not to its end, the command that runs it."""
        run, name = shlex.quote(str(self.folder)), shlex.quote(self.folder.resolve().name)
        stages = {
            "train": (self.metrics, f"train --config {run}/config.yaml"),
            "evaluate": (self.evaluation, f"evaluate {run} --out {run}/evaluation"),
            "export": (self.export, f"export {run} --out saved_models/{name}"),
            "benchmark": (self.inference, self._benchmark),
        }
        return {
            stage: f"python -m pipelines.{command}"
            for stage, (there, command) in stages.items()
            if not there
        }

    @property
    def _benchmark(self) -> str:
        """What measures the network as the run built it."""
        given = {"size_px": self.config.input.size_px, "num_classes": len(self.class_names)}
        usual = {"channels": self.card.input.channels, "width": 1}
        built = {"channels": self.config.input.channels, "width": self.config.width}
        given |= {name: value for name, value in built.items() if value != usual[name]}
        options = " ".join(f"--{name} {value}" for name, value in given.items())
        out = shlex.quote(str(self.results))
        return f"benchmark infer {self.config.network} {options} --out {out}"


def read_runs(folders: list[Path], results: Path) -> list[Known]:
    """Everything about some runs, in their order.

    Args:
        folders: of the runs, each another one.
        results: the folder of `infer.csv`; fine if there is none.

    Raises:
        BadInput: one of them is no run.
    """
    resolved = [folder.resolve() for folder in folders]
    names = [folder.name for folder in resolved]
    return [
        _read(folder, name if names.count(name) == 1 else str(folder), results)
        for folder, name in zip(folders, names, strict=True)
    ]


def _read(folder: Path, name: str, results: Path) -> Known:
    run = Run.open(folder)
    config, class_names, stages = run.config(), run.class_names(), read_stages(folder)
    environment = _json(folder / "environment.json") or {}
    blueprint = _blueprint(config, len(class_names))
    fits = {
        "network": config.network,
        "size_px": config.input.size_px,
        "num_classes": len(class_names),
        "parameters": blueprint.parameters,
        "batch_size": 1,
        "engine": SAVED_MODEL,
        "processor": environment.get("processor"),
        "cores": environment.get("cores"),
    }
    return Known(
        folder=folder,
        name=name,
        config=config,
        class_names=class_names,
        splits=_json(folder / "data.json") or {},
        environment=environment,
        metrics=run.metrics(),
        history=[
            {key: float(value) for key, value in row.items()}
            for row in _rows(folder / "history.csv")
        ],
        steps=[line for line in _lines(run.log_file) if line.get("kind") == "step"],
        stages=stages,
        evaluation=_newest(stages, "evaluate", _EVALUATED) or _unlogged(folder / _EVALUATION),
        export=_newest(stages, "export", _EXPORTED),
        results=results,
        inference=_fitting(_rows(results / INFERENCE), fits),
        blueprint=blueprint,
    )


def _newest(stages: list[StageRecord], stage: str, file: str) -> Path | None:
    """What the last that succeeded of a stage's records wrote, if it is still there."""
    outs = [each.out for each in stages if (each.stage, each.ended) == (stage, "done") and each.out]
    return next((out for out in reversed(outs) if (out / file).is_file()), None)


def _unlogged(evaluation: Path) -> Path | None:
    return evaluation if (evaluation / _EVALUATED).is_file() else None


def _fitting(measured: list[dict[str, str]], fits: dict[str, Any]) -> dict[str, str] | None:
    """The newest measurement that has these values."""
    texts = {column: str(value) for column, value in fits.items()}
    rows = [row for row in measured if row | texts == row]
    return max(rows, key=lambda row: row["measured_at"], default=None)


def _blueprint(config: TrainConfig, num_classes: int) -> Blueprint:
    with keras.StatelessScope(initialize_variables=False):
        model = keras_zoo.build(
            config.network,
            num_classes=num_classes,
            input_shape=config.input.shape,
            width=config.width,
        )
    return Blueprint(num_parameters(model), macs.count(model), chain(model))


def preparation(data: Path) -> dict[str, Any] | None:
    """What preparing a data set came to, if it is there."""
    told = _json(data / PREPARATION)
    return told and told["result"]


def _json(file: Path) -> dict[str, Any] | None:
    return json.loads(file.read_text()) if file.is_file() else None


def _rows(file: Path) -> list[dict[str, str]]:
    """Of a CSV file; none where there is no file."""
    if not file.is_file():
        return []
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def _lines(file: Path) -> list[dict[str, Any]]:
    """Of a file of JSON objects; a killed process may have left the last in part."""
    lines = []
    for text in file.read_text().splitlines() if file.is_file() else ():
        with suppress(ValueError):
            lines.append(json.loads(text))
    return lines
