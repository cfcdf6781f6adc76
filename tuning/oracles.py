"""keras-tuner's oracles, with a state that a kill at any moment leaves whole.

As keras-tuner writes it, a file may be cut short, a trial that has ended be run again, one that was
begun be forgotten, and a grid or a Gaussian process go on from elsewhere than where it was.
"""

import itertools
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras_tuner
import numpy as np
from keras_tuner import oracles
from keras_tuner.engine.trial import Trial, TrialStatus
from sklearn.exceptions import ConvergenceWarning

from pipelines import atomic
from tuning.config import SearchConfig
from tuning.records import records_of
from tuning.space import Space
from tuning.trials import Trials, searched

OBJECTIVE = keras_tuner.Objective("top1", "max")
ENDED = (TrialStatus.COMPLETED, TrialStatus.FAILED)
Report = Callable[[str], None]


class Durable(keras_tuner.Oracle):
    """What all oracles here have in common; `open` comes before anything else.

    oracle.json is the whole state but the trials, and each trial.json one of these. A trial whose
    file is ahead of oracle.json has ended if it says so, and is not begun if oracle.json does not
    know it. How trials ended is read from their folders: what a worker sends has no room for a
    reason, and rounds an accuracy to single precision.
    """

    def open(self, config: SearchConfig, trials: Trials, report: Report) -> None:
        """Begins the search in its folder, or goes on with it."""
        self._config = config
        self._folders = trials
        self._report = report
        self.verbose = 0
        self.max_trials = config.trial_limit
        self.reload() if self._file.is_file() else self.save()

    @property
    def _file(self) -> Path:
        return self._config.folder / "oracle.json"

    def save(self) -> None:
        atomic.write_text(self._file, json.dumps(self.get_state()))

    def _save_trial(self, trial: Trial) -> None:
        file = self._folders.folder(trial.trial_id) / "trial.json"
        atomic.write_text(file, json.dumps(trial.get_state()))

    def reload(self) -> None:
        state = json.loads(self._file.read_text())
        files = {
            trial_id: self._folders.folder(trial_id) / "trial.json"
            for trial_id in state["start_order"]
        }
        self.trials = {trial_id: Trial.load(str(file)) for trial_id, file in files.items()}
        self.set_state(state)
        ended = [trial_id for trial_id, trial in self.trials.items() if trial.status in ENDED]
        self.end_order += [trial_id for trial_id in ended if trial_id not in self.end_order]
        self.ongoing_trials = {
            worker: trial
            for worker, trial in self.ongoing_trials.items()
            if trial.trial_id not in ended
        }
        # They will ask again.
        self.tuner_ids = set(self.ongoing_trials)

    @keras_tuner.synchronized
    def under_way(self) -> dict[str, str]:
        """The trial that each worker has begun."""
        return {worker: trial.trial_id for worker, trial in self.ongoing_trials.items()}

    @keras_tuner.synchronized
    def release(self, *workers: str) -> None:
        """Gives the trials of these workers, which are gone, to those that ask next."""
        gone = self.ongoing_trials.keys() & workers
        released = {self.ongoing_trials.pop(worker).trial_id for worker in gone}
        self._retry_queue = sorted({*self._retry_queue, *released}, reverse=True)
        self.tuner_ids -= set(workers)

    @keras_tuner.synchronized
    def create_trial(self, tuner_id: str) -> Trial:
        """The trial that this worker has begun, or a new one; none after too many failures."""
        failures, known = self.failures_in_a_row(), tuner_id in self.ongoing_trials
        if known or failures <= self._config.max_failures_in_a_row:
            trial = super().create_trial(tuner_id)
        else:
            self.tuner_ids.discard(tuner_id)
            trial = Trial(self.get_space(), status=TrialStatus.STOPPED)
        if trial.status == TrialStatus.STOPPED and self.ongoing_trials:
            # Another's trial that completes ends a row of failures, and one whose worker dies is
            # to be taken up.
            self.tuner_ids.add(tuner_id)
            trial.status = TrialStatus.IDLE
        if trial.status == TrialStatus.RUNNING and not known:
            self._report(self._beginning(trial))
        return trial

    @keras_tuner.synchronized
    def end_trial(self, trial: Trial) -> None:
        """Takes over how a trial ended; a second time changes nothing."""
        known = self.trials[trial.trial_id]
        if known.status in ENDED:
            return
        outcome = self._folders.outcome(trial.trial_id)
        # What comes from a worker has its space in another order, and no message.
        trial.hyperparameters = known.hyperparameters
        trial.message = outcome.reason
        super().end_trial(trial)
        self._report(_ending(known))
        self._prune(self.promotable())

    def score_trial(self, trial: Trial) -> None:
        trial.score = self._folders.outcome(trial.trial_id).top1
        trial.best_step = self._folders.epochs(trial.trial_id)

    @keras_tuner.synchronized
    def idle(self) -> bool:
        """Whether no trial is under way, and no worker may ask for another."""
        return not self.ongoing_trials and not self.tuner_ids

    def failures_in_a_row(self) -> int:
        """How many of the trials that ended last have failed."""
        failed = [self.trials[i].status == TrialStatus.FAILED for i in reversed(self.end_order)]
        return [*failed, False].index(False)

    def finish(self) -> None:
        """Removes what only further trials would have needed, where there can be none."""
        if self.max_trials is None or len(self.trials) < self.max_trials:
            self._prune(set())

    def promotable(self) -> set[str]:
        """Trials that another may go on from."""
        return set()

    def _prune(self, needed: set[str]) -> None:
        """Removes checkpoints of trials that have ended, but of those and of the best."""
        best = records_of(self._config).ranking[: self._config.keep_best]
        needed = needed | {trial.name for trial in best}
        for trial_id in set(self.end_order) - needed:
            self._folders.prune(trial_id)

    def _beginning(self, trial: Trial) -> str:
        values = trial.hyperparameters.values
        past = values.get("tuner/trial_id")
        begins = f"goes on from {past}" if past else "begins"
        epochs = values.get("tuner/epochs", self._config.train.epochs)
        text = ", ".join(f"{field} {short(value)}" for field, value in searched(values).items())
        return f"trial {trial.trial_id} {begins}, to epoch {epochs}: {text}"


class RandomSearch(Durable, oracles.RandomSearchOracle):
    """Values drawn at random."""


class Hyperband(Durable, oracles.HyperbandOracle):
    """Many trials of few epochs, the best of which get more.

    Failed trials have their places in a bracket taken by others, drawn anew in its first round and
    the next best in later ones; keras-tuner waits for them, and few or none get all epochs.
    """

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        for bracket in self._brackets:
            number, rounds = bracket["bracket_num"], bracket["rounds"]
            failed = self._with_status(rounds[0], TrialStatus.FAILED)
            rounds[0][:] = [info for info in rounds[0] if info["id"] not in failed]
            for at, (now, after) in enumerate(itertools.pairwise(rounds), start=1):
                candidates = self._candidates(now, after)
                failed = self._with_status(after, TrialStatus.FAILED)
                left_behind = self._get_size(number, at - 1) - self._get_size(number, at)
                if candidates and len(candidates) + len(failed) > left_behind:
                    best = max((self.trials[i] for i in candidates), key=lambda trial: trial.score)
                    after.append({"past_id": best.trial_id, "id": trial_id})
                    own = {
                        "tuner/trial_id": best.trial_id,
                        "tuner/initial_epoch": self._get_epochs(number, at - 1),
                        "tuner/epochs": self._get_epochs(number, at),
                        "tuner/bracket": number,
                        "tuner/round": at,
                    }
                    values = best.hyperparameters.values | own
                    return {"status": TrialStatus.RUNNING, "values": values}
        return super().populate_space(trial_id)

    def _remove_completed_brackets(self) -> None:
        """None is, for keras-tuner counts trials of a last round that may still fail."""

    def _with_status(self, infos: list[dict[str, str]], status: str) -> list[str]:
        """Those trials of a round."""
        return [info["id"] for info in infos if self.trials[info["id"]].status == status]

    def _candidates(self, now: list[dict[str, str]], after: list[dict[str, str]]) -> list[str]:
        """Completed trials of a round from which none of the next has gone on."""
        taken = {info["past_id"] for info in after}
        return [i for i in self._with_status(now, TrialStatus.COMPLETED) if i not in taken]

    def promotable(self) -> set[str]:
        """Those that a next round may still need, and those that a trial is just going on from."""
        waiting = {
            trial_id
            for bracket in self._brackets
            for at, (now, after) in enumerate(itertools.pairwise(bracket["rounds"]), start=1)
            if len(self._with_status(after, TrialStatus.COMPLETED))
            < self._get_size(bracket["bracket_num"], at)
            for trial_id in self._candidates(now, after)
        }
        begun = {
            trial.hyperparameters.values.get("tuner/trial_id")
            for trial in self.trials.values()
            if trial.status not in ENDED
        }
        return waiting | begun


class BayesianOptimization(Durable, oracles.BayesianOptimizationOracle):
    """Values at which a Gaussian process expects most."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        # Not a generator that goes on from call to call: it does not outlive the process.
        self._random_state = np.random.RandomState(self.seed + len(self.start_order))
        with warnings.catch_warnings():
            # The few points of a search often fit a kernel at the end of its range.
            warnings.simplefilter("ignore", ConvergenceWarning)
            return super().populate_space(trial_id)


class GridSearch(Durable, oracles.GridSearchOracle):
    """All combinations, one after another.

    keras-tuner waits for a trial to end before it gives the next, which might bring new fields; a
    space read from a file has all of them from the start.
    """

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        if self.start_order:
            last = self.trials[self.start_order[-1]].hyperparameters.values
            values = self._get_next_combination(last)
        else:
            values = self.get_space().values
        status = TrialStatus.RUNNING if values else TrialStatus.STOPPED
        return {"status": status, "values": values}


ORACLES: dict[str, type[Durable]] = {
    "random": RandomSearch,
    "bayesian": BayesianOptimization,
    "hyperband": Hyperband,
    "grid": GridSearch,
}


def open_oracle(config: SearchConfig, space: Space, trials: Trials, report: Report) -> Durable:
    """The oracle of a search, from where its folder's state stands.

    Args:
        config: the search.
        space: what is searched.
        trials: the folders of its trials.
        report: is given a line about each trial that begins, and one when it ends.
    """
    # keras-tuner's three a field would be all that there are in a short search.
    drawn_first = max(3, min(3 * len(space.space), (config.trial_limit or 0) // 3))
    own = {
        "hyperband": {"max_epochs": config.train.epochs},
        "bayesian": {"num_initial_points": drawn_first},
    }
    oracle = ORACLES[config.tuner](
        objective=OBJECTIVE,
        # Not 0, which keras-tuner takes for none.
        seed=config.seed + 1,
        hyperparameters=space.declared(),
        allow_new_entries=False,
        # As many as there may be: the count here is `failures_in_a_row`.
        max_consecutive_failed_trials=None,
        **own.get(config.tuner, {}),
    )
    oracle.open(config, trials, report)
    return oracle


def _ending(trial: Trial) -> str:
    if trial.message:
        return f"trial {trial.trial_id} failed: {trial.message}"
    return f"trial {trial.trial_id}: top-1 {trial.score:.4f} after {trial.best_step} epochs"


def short(value: Any) -> str:
    """A value for a person to read."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
