"""The search: keras-tuner chooses, `pipelines.train` runs each trial in a process of its own."""

import contextlib
import dataclasses
import io
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any, TextIO

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus

from pipelines import atomic
from pipelines.command import dump, parse, refuse_another
from pipelines.config import TrainConfig
from pipelines.data.streams import num_images, open_dataset
from pipelines.errors import BadInput, Failed
from tuning.config import SearchConfig
from tuning.space import read_space

OBJECTIVE = keras_tuner.Objective("top1", "max")


@dataclass(frozen=True)
class Search:
    """The outcome of a search."""

    search: str
    completed: int
    failed: int
    best_top1: float
    best_values: dict[str, Any]
    best_config: str

    def __str__(self) -> str:
        values = ", ".join(f"{field} {_short(value)}" for field, value in self.best_values.items())
        return (
            f"{self.search}: {self.completed} trials completed, {self.failed} failed\n"
            f"best: top-1 {self.best_top1:.4f} on images held out of training, with {values}\n"
            f"next: python -m pipelines.train --config {quote(self.best_config)}"
        )


class TrainingTuner(keras_tuner.Tuner):
    """A tuner whose trials are runs of `pipelines.train`.

    Args:
        config: the search.
        base: what a trial's values are laid over.
        oracle: chooses the values.
        report: where a line about each trial goes.
    """

    def __init__(
        self, config: SearchConfig, base: TrainConfig, oracle: keras_tuner.Oracle, report: TextIO
    ):
        self._base = base
        self._report = report
        super().__init__(
            oracle=oracle, directory=config.search.parent, project_name=config.search.name
        )

    def run_trial(self, trial: Trial) -> dict[str, float]:
        """Trains with the trial's values and gives its accuracy after its last epoch.

        A trial that Hyperband promotes goes on from the checkpoint of the one it comes from.
        """
        values = trial.hyperparameters.values
        run = self._run_folder(trial.trial_id)
        own = {"run": run, "stop_after_epochs": values.get("tuner/epochs")}
        try:
            config = with_values(self._base, searched(values) | own)
        except BadInput as error:
            raise self._failure(trial, str(error)) from error
        if "tuner/trial_id" in values and not run.exists():
            shutil.copytree(self._run_folder(values["tuner/trial_id"]), run)
        config_file = run.with_name("train.yaml")
        atomic.write_text(config_file, dump(config))
        try:
            result = _train(config_file)
        except Failed as error:
            raise self._failure(trial, str(error)) from error
        text = ", ".join(f"{field} {_short(value)}" for field, value in searched(values).items())
        print(
            f"trial {trial.trial_id}: top-1 {result['top1']:.4f} after {result['epochs']} epochs, "
            f"{text}",
            file=self._report,
        )
        return {"top1": result["top1"]}

    def _failure(self, trial: Trial, reason: str) -> keras_tuner.errors.FailedTrialError:
        """What tells keras-tuner, and the user, that a trial failed; the search goes on."""
        print(f"trial {trial.trial_id} failed: {reason}", file=self._report)
        return keras_tuner.errors.FailedTrialError(reason)

    def _run_folder(self, trial_id: str) -> Path:
        return Path(self.get_trial_dir(trial_id)) / "run"


def search(config: SearchConfig) -> Search:
    """Runs the trials that are not done yet and writes the best config.

    Raises:
        BadInput: a space with a field that the training config lacks, or with a bad range; no
            such data; a folder that another search began.
        Failed: not one trial completed.
    """
    space = read_space(config.space)
    split, percent = config.train.train_split, 100 - config.holdout_percent
    if set("[+") & set(split):
        raise BadInput(f"train.train_split is {split!r}; a search takes a whole split to cut up")
    base = dataclasses.replace(
        config.train,
        train_split=f"{split}[:{percent}%]",
        validation_split=f"{split}[{percent}%:]",
    )
    with_values(base, space.values)
    dataset = open_dataset(base.data)
    for part in (base.train_split, base.validation_split):
        num_images(dataset, part)
    config.search.mkdir(parents=True, exist_ok=True)
    recorded = config.search / "search.yaml"
    refuse_another(recorded, config, {"search", "max_trials"})
    with atomic.locked(config.search):
        atomic.write_text(recorded, dump(config))
        tuner = _run(config, base, space)
    trials = list(tuner.oracle.trials.values())
    completed = [trial for trial in trials if trial.status == TrialStatus.COMPLETED]
    if not completed:
        raise Failed(f"all {len(trials)} trials failed ({_reasons(tuner)})")
    best = max(completed, key=lambda trial: trial.score)
    values = searched(best.hyperparameters.values)
    best_config = config.search / "best.yaml"
    run = config.train.run.parent / f"{config.search.name}-best"
    atomic.write_text(best_config, dump(with_values(config.train, values | {"run": run})))
    return Search(
        search=str(config.search),
        completed=len(completed),
        failed=len(trials) - len(completed),
        best_top1=best.score,
        best_values=values,
        best_config=str(best_config),
    )


def _run(
    config: SearchConfig, base: TrainConfig, space: keras_tuner.HyperParameters
) -> "TrainingTuner":
    """Runs the trials that are not done yet; only our own lines are shown of it."""
    report = sys.stderr
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        tuner = TrainingTuner(config, base, _oracle(config, space), report)
        tuner.oracle.verbose = 0
        # Else keras-tuner writes its state after the first trial, and forgets one that was begun.
        tuner.oracle.save()
        tuner.save()
        try:
            tuner.search()
        except RuntimeError as error:
            raise Failed(f"{error.args[0].strip().splitlines()[0]} ({_reasons(tuner)})") from error
    return tuner


def with_values(base: TrainConfig, values: dict[str, Any]) -> TrainConfig:
    """A training config with some fields, named with dots, replaced.

    Raises:
        BadInput: there is no such field, or it does not take the value.
    """
    overrides = [
        f"--{field}={'null' if value is None else value}" for field, value in values.items()
    ]
    with tempfile.TemporaryDirectory() as folder:
        base_file = Path(folder) / "base.yaml"
        base_file.write_text(dump(base))
        return parse(TrainConfig, ["--config", str(base_file), *overrides])


def searched(values: dict[str, Any]) -> dict[str, Any]:
    """A trial's values without those that keras-tuner keeps for itself (`tuner/epochs`, ...)."""
    return {field: value for field, value in values.items() if not field.startswith("tuner/")}


def _oracle(config: SearchConfig, space: keras_tuner.HyperParameters) -> keras_tuner.Oracle:
    # Not 0, which keras-tuner takes for none.
    seed = config.seed + 1
    if config.tuner == "random":
        return keras_tuner.oracles.RandomSearchOracle(
            OBJECTIVE, config.max_trials, seed, space, allow_new_entries=False
        )
    oracle = keras_tuner.oracles.HyperbandOracle(
        OBJECTIVE,
        config.train.epochs,
        seed=seed,
        hyperparameters=space,
        allow_new_entries=False,
    )
    oracle.max_trials = config.max_trials
    return oracle


def _train(config_file: Path) -> dict[str, Any]:
    """Runs `pipelines.train` in a process of its own.

    Raises:
        Failed: it did not end well; the message is the last line it wrote.
    """
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.train", "--config", config_file, "--json"],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1]
        raise Failed(f"exit status {done.returncode}: {reason}")
    return json.loads(done.stdout)


def _reasons(tuner: TrainingTuner) -> str:
    """Why trials failed, each reason once."""
    messages = [
        t.message.strip().splitlines()[-1] for t in tuner.oracle.trials.values() if t.message
    ]
    return "; ".join(dict.fromkeys(messages))


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
