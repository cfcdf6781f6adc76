"""A run is a folder: its config, checkpoints, history and result.

config.yaml        repeats the run
environment.json   versions, commit, hardware
labels.txt         class names, one a line, in the order of the logits
checkpoints/       the newest and the best (see `pipelines.training.checkpoints`)
history.csv        a row an epoch
log.jsonl          the same, and a line for about each second (see `pipelines.training.step_log`)
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

from pipelines import atomic
from pipelines.command import dump, load, refuse_another
from pipelines.config import TrainConfig
from pipelines.errors import BadInput
from pipelines.training.checkpoints import Checkpoints
from pipelines.training.environment import environment
from pipelines.training.model import image_classifier

# What may differ when a run goes on: where it is, how far it goes this time, who prepares images,
# how often it is saved, what is logged, what it does in trouble, how much it holds in memory at a
# time, and which machines do it.
CHANGEABLE = {
    "run",
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
    def start(cls, config: TrainConfig, class_names: list[str]) -> "Run":
        """Opens the folder for training: a new one, or one that the same config began.

        Raises:
            BadInput: the folder belongs to a run with another config or other classes; the
                message names what differs.
        """
        run = cls(config.run)
        refuse_another(run.config_file, config, CHANGEABLE)
        if run._labels_file.is_file() and run.class_names() != class_names:
            raise BadInput(
                f"{str(config.data)!r} has other classes than the run in {str(run.folder)!r}: "
                f"{first_difference(class_names, run.class_names())}; choose another --run"
            )
        atomic.write_text(run._labels_file, "".join(f"{name}\n" for name in class_names))
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

    def write_history(self, history: list[dict[str, float]]) -> None:
        """Writes the epochs so far for a person to read."""
        with (
            atomic.replacing(self.folder / "history.csv") as partial,
            partial.open("w", newline="") as file,
        ):
            writer = csv.DictWriter(file, fieldnames=list(history[0]))
            writer.writeheader()
            writer.writerows(history)

    def model_file(self) -> Path:
        """The weights of the newest checkpoint, as they are evaluated.

        Raises:
            BadInput: the run has no checkpoint yet, or a corrupt one.
        """
        file = self.checkpoints.model_file()
        if not file:
            raise BadInput(
                f"no checkpoint in {str(self.folder)!r} yet; "
                f"python -m pipelines.train --config {self.config_file} goes on with the run"
            )
        return file

    def classifier(self) -> keras.Model:
        """The trained model of the newest checkpoint: uint8 images -> logits.

        Raises:
            BadInput: the run has no checkpoint yet, or a corrupt one.
        """
        config, file = self.config(), self.model_file()
        return image_classifier(config.network, config.input, len(self.class_names()), file)


def starting_weights(config: TrainConfig) -> Path | str | None:
    """What a new run begins with: its `weights`, those of a run's folder being a file in it.

    Raises:
        BadInput: the run in the folder has no checkpoint, or is of another network.
    """
    other = Run(Path(config.weights or ""))
    if config.weights is None or not other.config_file.is_file():
        return config.weights
    network = other.config().network
    if network != config.network:
        raise BadInput(
            f"weights is {config.weights!r}, a run of {network}, and network is "
            f"{config.network}; give a run of that, or --network {network}"
        )
    return other.model_file()


def first_difference(ours: list[str], theirs: list[str]) -> str:
    """The first class that two lists do not share, for a message."""
    pairs = itertools.zip_longest(ours, theirs, fillvalue="none")
    number, names = next((i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1])
    return f"class {number} is {names[0]!r} there and {names[1]!r} in the run"
