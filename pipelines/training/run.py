"""A run is a folder: its config, checkpoints, history and result.

config.yaml        repeats the run
environment.json   versions, commit, hardware
labels.txt         class names, one a line, in the order of the logits
data.json          the size of each split of the data set
checkpoints/       the newest and the best (see `pipelines.training.checkpoints`)
history.csv        a row an epoch
log.jsonl          the same, and a line for about each second (see `pipelines.training.step_log`)
stages.jsonl       when it was trained, evaluated and exported (see `pipelines.stage_log`)
tensorboard/       curves, hyperparameters, the graph, images
metrics.json       the result; present when the run is finished
"""

import csv
import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow_datasets as tfds

from pipelines import atomic
from pipelines.command import dump, load, refuse_another
from pipelines.config import TrainConfig
from pipelines.data.streams import class_names
from pipelines.errors import BadInput
from pipelines.training.checkpoints import Checkpoints, model_file
from pipelines.training.environment import environment
from pipelines.training.model import image_classifier

# What may differ when a run goes on: where it and its data are, how far it goes this time, who
# prepares images, how often it is saved, what is logged, what it does in trouble, how much it holds
# in memory at a time, and which machines do it.
CHANGEABLE = {
    "run",
    "data",
    "stop_after_epochs",
    "early_stopping_epochs",
    "accumulation_steps",
    "decode_threads",
    "data_service",
    "checkpoint_every_steps",
    "kept_checkpoints",
    "weight_histograms",
    "on_nan",
    "on_disk_full",
    "workers",
    "worker_index",
    "local_workers",
}


@dataclass(frozen=True)
class Run:
    """The folder of one training run.

    Args:
        folder: where everything of the run is.
    """

    folder: Path

    @classmethod
    def start(cls, config: TrainConfig, dataset: tfds.core.DatasetBuilder) -> "Run":
        """Opens the folder for training: a new one, or one that the same config began.

        Raises:
            BadInput: the folder belongs to a run with another config, other classes or another
                data set; the message names what differs.
        """
        names, sizes = class_names(dataset), _sizes(dataset)
        run = cls(config.run)
        refuse_another(run.config_file, config, CHANGEABLE)
        if run._labels_file.is_file():
            run.require_classes(names, str(config.data))
        run._require_sizes(sizes, str(config.data))
        atomic.write_text(run._labels_file, "".join(f"{name}\n" for name in names))
        atomic.write_text(run._sizes_file, json.dumps(sizes, indent=2))
        atomic.write_text(run.config_file, dump(config))
        if not (run.folder / "environment.json").is_file():
            atomic.write_text(run.folder / "environment.json", json.dumps(environment(), indent=2))
        return run

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """Opens the folder of an existing run.

        Raises:
            BadInput: there is no run in it.
        """
        run = cls(folder)
        if not (run.config_file.is_file() and run._labels_file.is_file()):
            raise BadInput(f"no run in {str(folder)!r}; python -m pipelines.train makes one")
        return run

    @property
    def config_file(self) -> Path:
        """What repeats the run, and goes on with it."""
        return self.folder / "config.yaml"

    @property
    def _labels_file(self) -> Path:
        return self.folder / "labels.txt"

    @property
    def _sizes_file(self) -> Path:
        return self.folder / "data.json"

    @property
    def checkpoints(self) -> Checkpoints:
        return Checkpoints(self.folder / "checkpoints")

    @property
    def _metrics_file(self) -> Path:
        return self.folder / "metrics.json"

    @property
    def board_folder(self) -> Path:
        return self.folder / "tensorboard"

    @property
    def log_file(self) -> Path:
        return self.folder / "log.jsonl"

    def config(self) -> TrainConfig:
        """The config that the run was started with."""
        return load(TrainConfig, self.config_file)

    def class_names(self) -> list[str]:
        """The labels, in the order of the logits."""
        return self._labels_file.read_text().split("\n")[:-1]

    def metrics(self) -> dict[str, Any] | None:
        """The result, or None while the run is not finished."""
        if not self._metrics_file.is_file():
            return None
        return json.loads(self._metrics_file.read_text())

    def finish(self, metrics: dict[str, Any]) -> None:
        """Records the result."""
        atomic.write_text(self._metrics_file, json.dumps(metrics, indent=2))

    def unfinish(self) -> None:
        """Takes back the result of a run that goes on after what was its end."""
        self._metrics_file.unlink(missing_ok=True)

    def write_history(self, history: list[dict[str, float]]) -> None:
        """Writes the epochs so far for a person to read."""
        with (
            atomic.replacing(self.folder / "history.csv") as partial,
            partial.open("w", newline="") as file,
        ):
            writer = csv.DictWriter(file, fieldnames=list(history[0]))
            writer.writeheader()
            writer.writerows(history)

    def checkpoint(self, which: str = "newest") -> Path:
        """One of `CHECKPOINTS`.

        Raises:
            BadInput: the run has no checkpoint yet.
        """
        checkpoints = self.checkpoints
        chosen = checkpoints.best() if which == "best" else checkpoints.newest()
        if not chosen:
            raise BadInput(
                f"no checkpoint in {str(self.folder)!r} yet; "
                f"python -m pipelines.train --config {self.config_file} goes on with the run"
            )
        return chosen

    def classifier(self, which: str = "newest") -> keras.Model:
        """The trained model of a checkpoint, one of `CHECKPOINTS`: uint8 images -> logits.

        Raises:
            BadInput: the run has no checkpoint yet, or a corrupt one.
        """
        config, file = self.config(), model_file(self.checkpoint(which))
        classes = len(self.class_names())
        return image_classifier(config.network, config.input, classes, file, width=config.width)

    def require_classes(self, class_names: list[str], data: str) -> None:
        """Refuses data of other classes than the run's.

        Raises:
            BadInput: with the first class that differs.
        """
        require_same_classes(class_names, data, self.class_names(), str(self.folder))

    def _require_sizes(self, sizes: dict[str, dict[str, int]], data: str) -> None:
        """Refuses another data set than the run's; splits that are new in it are none of its."""
        own = json.loads(self._sizes_file.read_text()) if self._sizes_file.is_file() else {}
        for split, size in own.items():
            if sizes.get(split) != size:
                raise BadInput(
                    f"{data!r} is another data set than that of the run in {str(self.folder)!r}: "
                    f"{split} has {_told(sizes.get(split, {}))} there and {_told(size)} in the "
                    "run; prepare it as it was, or choose another run"
                )


def require_same_classes(given: list[str], data: str, own: list[str], model: str) -> None:
    """Refuses data of other classes than a model's.

    Raises:
        BadInput: with the first class that differs.
    """
    for number, pair in enumerate(itertools.zip_longest(given, own, fillvalue="none")):
        if pair[0] != pair[1]:
            raise BadInput(
                f"{data!r} has other classes than {model!r}: class {number} is {pair[0]!r} there "
                f"and {pair[1]!r} here; prepare it from the same class folders, or choose another "
                "model"
            )


def starting_weights(config: TrainConfig) -> Path | str | None:
    """What a new run begins with: its `init`, a run's folder being its newest weights.

    Raises:
        BadInput: the run in the folder has no checkpoint, or is of another network or width.
    """
    other = Run(Path(config.init or ""))
    if config.init is None or not other.config_file.is_file():
        return config.init
    recorded = other.config()
    for name in ("network", "width"):
        theirs, ours = getattr(recorded, name), getattr(config, name)
        if theirs != ours:
            raise BadInput(
                f"init is {config.init!r}, a run of {name} {theirs}, and {name} is {ours}; "
                f"give another run, or --{name} {theirs}"
            )
    return model_file(other.checkpoint())


def _sizes(dataset: tfds.core.DatasetBuilder) -> dict[str, dict[str, int]]:
    """What tells a prepared data set from another without reading it, by split."""
    return {
        name: {
            "images": int(split.num_examples),
            "files": int(split.num_shards),
            "bytes": int(split.num_bytes),
        }
        for name, split in dataset.info.splits.items()
    }


def _told(size: dict[str, int]) -> str:
    return ", ".join(f"{number} {what}" for what, number in size.items()) or "nothing"
