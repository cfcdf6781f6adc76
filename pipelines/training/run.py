"""A run is a folder: its config, checkpoints, history and result.

config.yaml        repeats the run
environment.json   versions, commit, hardware
labels.txt         class names, one a line, in the order of the logits
checkpoints/       epoch_0007.weights.h5 and epoch_0007.json, the last two
history.csv        a row an epoch
tensorboard/
metrics.json       the result; present when the run is finished
"""

import csv
import hashlib
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
from pipelines.training.environment import environment
from pipelines.training.model import image_classifier

KEPT_CHECKPOINTS = 2
# What may differ when a run goes on: where it is, how far it goes this time, who prepares images.
CHANGEABLE = {"run", "stop_after_epochs", "decode_threads", "data_service"}


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
        refuse_another(run._config_file, config, CHANGEABLE)
        if run._labels_file.is_file() and run.class_names() != class_names:
            raise BadInput(
                f"{str(config.data)!r} has other classes than the run in {str(run.folder)!r}: "
                f"{first_difference(class_names, run.class_names())}; choose another --run"
            )
        atomic.write_text(run._labels_file, "".join(f"{name}\n" for name in class_names))
        atomic.write_text(run._config_file, dump(config))
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
        if not (run._config_file.is_file() and run._labels_file.is_file()):
            raise BadInput(f"no run in {str(folder)!r}; python -m pipelines.train makes one")
        return run

    @property
    def _config_file(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def _labels_file(self) -> Path:
        return self.folder / "labels.txt"

    @property
    def _checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def _metrics_file(self) -> Path:
        return self.folder / "metrics.json"

    def config(self) -> TrainConfig:
        """The config that the run was started with."""
        return load(TrainConfig, self._config_file)

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

    def save_checkpoint(self, model: keras.Model, history: list[dict[str, float]]) -> None:
        """Saves weights, optimizer and history after an epoch; whole, or not there at all."""
        weights = self._checkpoints / f"epoch_{len(history):04d}.weights.h5"
        with atomic.replacing(weights) as partial:
            model.save_weights(partial)
        record = {"sha256": _sha256(weights), "history": history}
        atomic.write_text(_record_file(weights), json.dumps(record, indent=2))
        _write_csv(self.folder / "history.csv", history)
        for old in self._saved_weights()[:-KEPT_CHECKPOINTS]:
            _record_file(old).unlink()
            old.unlink()

    def restore_checkpoint(self, model: keras.Model) -> list[dict[str, float]]:
        """Loads the newest checkpoint, if there is one, and gives its history.

        Raises:
            BadInput: the file is not the one that was written.
        """
        saved = self._saved_weights()
        if not saved:
            return []
        weights = saved[-1]
        try:
            record = json.loads(_record_file(weights).read_text())
            sha256, history = record["sha256"], record["history"]
        except (ValueError, KeyError):
            sha256, history = "of no record", []
        if _sha256(weights) != sha256:
            raise BadInput(
                f"corrupt checkpoint {str(weights)!r}: its SHA-256 is not the recorded one; "
                "delete it and its .json to go on from the one before"
            )
        model.load_weights(weights)
        return history

    def has_checkpoint(self) -> bool:
        """Whether an epoch of the run is finished."""
        return bool(self._saved_weights())

    def checkpoint_sha256(self) -> str | None:
        """What identifies the newest checkpoint; None if there is none."""
        saved = self._saved_weights()
        return _sha256(saved[-1]) if saved else None

    def classifier(self) -> keras.Model:
        """The trained model of the newest checkpoint: uint8 images -> logits.

        Raises:
            BadInput: the run has no checkpoint yet, or a corrupt one.
        """
        config = self.config()
        model = image_classifier(config.network, config.input, len(self.class_names()))
        if not self.restore_checkpoint(model):
            raise BadInput(
                f"no checkpoint in {str(self.folder)!r} yet; "
                f"python -m pipelines.train --config {self._config_file} goes on with the run"
            )
        return model

    def _saved_weights(self) -> list[Path]:
        """The checkpoints that are whole, oldest first: those whose record was written."""
        records = sorted(self._checkpoints.glob("epoch_*.json"))
        return [record.with_suffix(".weights.h5") for record in records]


def first_difference(ours: list[str], theirs: list[str]) -> str:
    """The first class that two lists do not share, for a message."""
    pairs = itertools.zip_longest(ours, theirs, fillvalue="none")
    number, names = next((i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1])
    return f"class {number} is {names[0]!r} there and {names[1]!r} in the run"


def _record_file(weights: Path) -> Path:
    return weights.with_name(weights.name.replace(".weights.h5", ".json"))


def _sha256(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_csv(path: Path, rows: list[dict[str, float]]) -> None:
    with atomic.replacing(path) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
