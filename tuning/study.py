"""The search as a whole: what it is told, the trials, and the best config.

search.yaml   what the search is told; with space.yaml it goes on only as it was begun
space.yaml    what is searched
oracle.json   keras-tuner's state (see `tuning.oracles`)
trial_ID/     a trial (see `tuning.trials`)
stages.jsonl  when it was searched (see `pipelines.stage_log`)
best.yaml     a config that trains what did best
"""

import dataclasses
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from shlex import quote
from typing import Any

from pipelines import atomic
from pipelines.command import dump, refuse_another
from pipelines.data.streams import num_images, open_dataset
from pipelines.errors import BadInput, Failed, Stopped
from pipelines.stage_log import logged
from tuning.config import SearchConfig, WorkerConfig
from tuning.oracles import Durable, open_oracle, short
from tuning.records import Budget, records_of
from tuning.space import Space, read_space
from tuning.spread import Work, join, quiet, run_local_workers, wait_for_workers, work
from tuning.trials import Trials

# What may differ when a search goes on: where it is, how far it goes, what a trial may take, what
# is kept of it, and who runs it. What is searched is compared by itself.
CHANGEABLE = {
    "search",
    "space",
    "max_trials",
    "trial_memory_gib",
    "trial_timeout_s",
    "max_failures_in_a_row",
    "keep_best",
    "role",
    "chief",
    "local_workers",
}
# What a search itself decides.
DECIDED = ("data", "run", "train_split", "validation_split", "epochs", "stop_after_epochs")


@dataclass(frozen=True)
class Search:
    """The outcome of a search. Accuracy is on minival."""

    search: str
    completed: int
    failed: int
    reasons: dict[str, str]
    budget: Budget
    best_trial: str
    best_top1: float
    best_epochs: int
    full_epochs: int
    best_values: dict[str, Any]
    best_config: str

    def __str__(self) -> str:
        values = ", ".join(f"{field} {short(value)}" for field, value in self.best_values.items())
        return (
            f"{self.search}: {self.completed} trials completed, {self.failed} failed\n"
            f"{self.budget}\n"
            f"best: trial {self.best_trial}, top-1 {self.best_top1:.4f} on minival, with {values}\n"
            f"{self._shortfall}next: python -m pipelines.train --config {quote(self.best_config)}"
        )

    @property
    def _shortfall(self) -> str:
        """A line where trials were compared before any had all epochs."""
        if self.best_epochs == self.full_epochs:
            return ""
        return (
            f"no trial got all {self.full_epochs} epochs, the best {self.best_epochs}: max_trials "
            "or what the space has ended before that, or longer trials failed; a higher "
            "--max_trials goes on, and a small space is for --tuner grid\n"
        )


def search(config: SearchConfig) -> Search | Work:
    """Runs the trials that are not done yet and writes the best config.

    Raises:
        BadInput: a space with a field that the training config lacks, or with a value that it does
            not take; no such data, or data without minival; a folder that another search began.
        Failed: not one trial completed, or too many failed in a row.
        Stopped: this process was asked to stop.
    """
    config = with_environment(config, os.environ)
    config = dataclasses.replace(config, search=config.folder)
    if config.role == "worker":
        return join(WorkerConfig(config.folder, chief=config.chief))
    space, trials = read_space(config.space), Trials(config)
    _check(space, trials)
    _check_data(config)
    with atomic.locked(config.folder):
        refuse_another(config.folder / "search.yaml", config, CHANGEABLE)
        refuse_another(config.folder / "space.yaml", space, set())
        atomic.write_text(config.folder / "space.yaml", dump(space))
        atomic.write_text(config.folder / "search.yaml", dump(config))
        oracle = open_oracle(config, space, trials, lambda line: print(line, file=sys.stderr))
        with quiet(), logged(config.folder, "tune"):
            _run(config, oracle, trials)
        if not_done := oracle.under_way().values():
            raise Stopped(f"trials {', '.join(not_done)} were stopped; type the same command again")
        return _result(config, oracle, trials)


def with_environment(config: SearchConfig, variables: Mapping[str, str]) -> SearchConfig:
    """The config with the role that keras-tuner's variables give this process."""
    if config.role != "alone" or "KERASTUNER_ORACLE_IP" not in variables:
        return config
    try:
        host, port, name = (
            variables[f"KERASTUNER_{key}"] for key in ("ORACLE_IP", "ORACLE_PORT", "TUNER_ID")
        )
    except KeyError as error:
        raise BadInput(f"KERASTUNER_ORACLE_IP is set and {error.args[0]} is not") from error
    role = "chief" if "chief" in name else "worker"
    try:
        return dataclasses.replace(config, role=role, chief=f"{host}:{port}")
    except ValueError as error:
        raise BadInput(f"KERASTUNER_ORACLE_IP is set, and {error}") from error


def _check(space: Space, trials: Trials) -> None:
    """That the training config takes whatever the space can give, one field at a time."""
    if decided := [field for field in space.space if field in DECIDED]:
        raise BadInput(f"{decided[0]} is not to be searched: a search decides it itself")
    for values in space.extremes():
        try:
            trials.with_values(values)
        except BadInput as error:
            raise BadInput(f"{list(values)[-1]} cannot be searched: {error}") from error


def _check_data(config: SearchConfig) -> None:
    """That trials can train and be measured, and that neither is on what is kept for the end."""
    dataset, split = open_dataset(config.data), config.train.train_split
    if split.partition("[")[0] != "train" or "+" in split:
        raise BadInput(f"train.train_split is {split!r}; trials train on train, or a part of it")
    if "minival" not in dataset.info.splits:
        raise BadInput(
            f"{str(config.data)!r} has no split 'minival' to measure trials on; "
            "python -m pipelines.prepare SOURCE --out NEW --minival 0.1 carves one out of train"
        )
    for part in (split, "minival"):
        num_images(dataset, part)


def _run(config: SearchConfig, oracle: Durable, trials: Trials) -> None:
    """Runs the trials that are not done yet, here or where the workers are."""
    if config.role == "chief":
        wait_for_workers(oracle, config.chief, trials, config.folder)
        return
    # Whoever ran them ended with the process that went before this one.
    oracle.release(*oracle.under_way())
    if config.local_workers > 1:
        run_local_workers(oracle, config)
    else:
        work(oracle, "local-0", trials)


def _result(config: SearchConfig, oracle: Durable, trials: Trials) -> Search:
    """Writes the best config and sums up."""
    records = records_of(config)
    reasons = {trial.name: trial.reason for trial in records.trials if trial.reason}
    told = "; ".join(dict.fromkeys(reasons.values()))
    if (count := oracle.failures_in_a_row()) > config.max_failures_in_a_row:
        raise Failed(
            f"{count} trials in a row failed ({told}); a higher --max_failures_in_a_row goes on, "
            "another --space needs another --search"
        )
    if not records.ranking:
        raise Failed(f"all {len(records.trials)} trials failed ({told})")
    oracle.finish()
    best = records.ranking[0]
    best_config = config.folder / "best.yaml"
    atomic.write_text(best_config, dump(trials.best_config(best.name)))
    return Search(
        search=str(config.folder),
        completed=len(records.ranking),
        failed=len(reasons),
        reasons=reasons,
        budget=records.budget,
        best_trial=best.name,
        best_top1=best.top1,
        best_epochs=best.last_epoch,
        full_epochs=config.train.epochs,
        best_values=best.values,
        best_config=str(best_config),
    )
