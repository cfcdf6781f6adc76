"""What a search has recorded, read without keras-tuner: it may be running, killed or done.

search.yaml                  what it was told
oracle.json                  keras-tuner's: in which order trials ended
trial_*/trial.json           keras-tuner's: what was chosen, how it ended, why it failed
trial_*/run/history.csv      a row an epoch; a continued trial begins with a copy of the other's
"""

import csv
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.command import load
from pipelines.errors import BadInput
from tuning.config import SearchConfig

STATUSES = {"COMPLETED": "completed", "FAILED": "failed"}


@dataclass(frozen=True)
class Field:
    """A field of the training config that is searched.

    Args:
        low, high: the ends of its range; None where its values are listed.
        log: whether the range is in equal ratios.
        choices: the values where they are listed.
    """

    low: float | None
    high: float | None
    log: bool
    choices: tuple[Any, ...]


@dataclass(frozen=True)
class Trial:
    """One trial.

    Args:
        name: keras-tuner's.
        status: `completed`, `failed`, or `unfinished`: it runs, or the search was stopped.
        top1: on the images that trials are measured on, after the newest epoch; None before one.
        n: those images.
        epochs: the model's age, whoever trained it.
        own_epochs: those that this trial has trained itself.
        last_epoch: the age it is to reach.
        continues: the trial from whose checkpoint it went on.
        values: what was chosen, by field.
        reason: why it failed.
    """

    name: str
    status: str
    top1: float | None
    n: int | None
    epochs: int
    own_epochs: int
    last_epoch: int
    continues: str | None
    values: dict[str, Any]
    reason: str | None


@dataclass(frozen=True)
class Budget:
    """Epochs that the trials of a search took, those that failed among them.

    Args:
        trained: in fact.
        without_continuation: had every trial started from scratch.
    """

    trained: int
    without_continuation: int

    def __str__(self) -> str:
        return (
            f"epochs trained in total: {self.trained:,}; without one trial going on from another: "
            f"{self.without_continuation:,}"
        )


@dataclass(frozen=True)
class Records:
    """A search so far.

    Args:
        config: what it was told.
        fields: what is searched, by name.
        trials: in the order they ended, those that have not ended last.
    """

    config: SearchConfig
    fields: dict[str, Field]
    trials: list[Trial]

    @property
    def ranking(self) -> list[Trial]:
        """Completed trials: those that trained longest first, and among equals the best.

        Accuracies after different numbers of epochs say little about each other.
        """
        completed = [trial for trial in self.trials if trial.status == "completed"]
        return sorted(completed, key=lambda trial: (-trial.last_epoch, -trial.top1, trial.name))

    @property
    def best(self) -> Trial | None:
        """The best of those that trained as long as the config they are to end in."""
        ranking = self.ranking
        return ranking[0] if ranking and self.is_full(ranking[0]) else None

    @property
    def budget(self) -> Budget:
        """What all trials took."""
        return Budget(
            sum(trial.own_epochs for trial in self.trials),
            sum(trial.epochs for trial in self.trials),
        )

    @property
    def varying(self) -> list[str]:
        """The fields that were not the same in all trials."""
        return [
            name
            for name in self.fields
            if len({trial.values.get(name) for trial in self.trials}) > 1
        ]

    def is_full(self, trial: Trial) -> bool:
        """Whether it was given as many epochs as any model of this search."""
        return trial.last_epoch >= self.config.train.epochs


def read_records(folder: Path) -> Records:
    """Reads a search's folder.

    Raises:
        BadInput: there is no search in it.
    """
    told = folder / "search.yaml"
    if not told.is_file():
        raise BadInput(f"no search in {str(folder)!r}; python -m tuning.search makes one")
    return records_of(dataclasses.replace(load(SearchConfig, told), search=folder))


def records_of(config: SearchConfig) -> Records:
    """Reads the trials of a search."""
    folder = config.folder
    found = map(_json, folder.glob("trial_*/trial.json"))
    states = {state["trial_id"]: state for state in found if state}
    histories = {name: _history(folder / f"trial_{name}" / "run") for name in states}
    ended = _json(folder / "oracle.json").get("end_order", [])
    order = {name: position for position, name in enumerate(ended)}
    names = sorted(states, key=lambda name: (order.get(name, len(order)), name))
    spaces = [state["hyperparameters"]["space"] for state in states.values()]
    return Records(
        config=config,
        fields={entry["config"]["name"]: _field(entry) for space in spaces[:1] for entry in space},
        trials=[_trial(states[name], histories, config.train.epochs) for name in names],
    )


def _json(file: Path) -> dict[str, Any]:
    """A file of keras-tuner's; empty where there is none, or none that can be read."""
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return {}


def _history(run: Path) -> list[dict[str, str]]:
    file = run / "history.csv"
    if not file.is_file():
        return []
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def _field(entry: dict[str, Any]) -> Field:
    """What keras-tuner has of one in its `space`."""
    declared = entry["config"]
    booleans = (False, True) if entry["class_name"] == "Boolean" else ()
    return Field(
        low=declared.get("min_value"),
        high=declared.get("max_value"),
        log=declared.get("sampling") == "log",
        choices=tuple(declared.get("values", booleans)),
    )


def _trial(
    state: dict[str, Any], histories: dict[str, list[dict[str, str]]], full_epochs: int
) -> Trial:
    name = state["trial_id"]
    values = state["hyperparameters"]["values"]
    continues = values.get("tuner/trial_id")
    history = histories[name]
    copied = histories.get(continues, [])[: values.get("tuner/initial_epoch", 0)]
    # A trial whose predecessor's checkpoint was gone has trained those epochs again.
    own_epochs = len(history) - (len(copied) if history[: len(copied)] == copied else 0)
    newest = history[-1] if history else {}
    score = state["score"]
    return Trial(
        name=name,
        status=STATUSES.get(state["status"], "unfinished"),
        top1=float(newest["val_top1"]) if newest and score is None else score,
        n=int(float(newest["val_n"])) if newest else None,
        epochs=len(history),
        own_epochs=own_epochs,
        last_epoch=values.get("tuner/epochs", full_epochs),
        continues=continues,
        values={field: value for field, value in values.items() if not field.startswith("tuner/")},
        reason=state["message"],
    )
