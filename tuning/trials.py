"""Trials: each a run of `pipelines.train`, in a process and a folder of its own.

trial_ID/trial.json     the trial as keras-tuner knows it
trial_ID/train.yaml     the run's config
trial_ID/train.log      what the run wrote to standard error
trial_ID/run/           the run (see `pipelines.training.run`)
trial_ID/outcome.json   how it ended (see `Outcome`); present when it has
"""

import csv
import dataclasses
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from pipelines import atomic
from pipelines.command import dump, parse
from pipelines.config import TrainConfig
from pipelines.errors import BadInput, Failed, Stopped
from pipelines.training.children import bound, end
from pipelines.training.interruption import Interruption
from pipelines.training.run import Run
from tuning.config import SearchConfig

TRAIN = [sys.executable, "-m", "pipelines.train"]
WATCHED_EVERY_S = 0.2
STOPPED = "stopped; type the same command again, and the search goes on"
# As the allocators of TensorFlow, CUDA, C++ and Python say it, and `pipelines.train`; but for what
# TensorFlow says where it tried to have more than it needs.
_OUT_OF_MEMORY = re.compile(
    "(?!.*not a failure).*("
    "OOM when allocating|out of memory|OUT_OF_MEMORY|bad_alloc|MemoryError|unable to allocate|"
    "failed to allocate memory|where memory ran out)",
    re.IGNORECASE,
)
_REASON = re.compile(r"(?:failed|error): .|[\w.]+(?:Error|Exception)\b")
_MAX_REASON_CHARS = 400


class OutOfMemory(Failed):
    """A run had less memory than it takes."""


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Args:
        top1: on minival after the last epoch; None where the trial failed.
        reason: why it failed, one line; None where it completed.
        accumulation_steps: of the run's config in the end, more than the trial began with where it
            ran out of memory once; None where nothing was run.
    """

    top1: float | None
    reason: str | None
    accumulation_steps: int | None


class Trials:
    """The folder of a search's trials.

    Args:
        config: the search.
    """

    def __init__(self, config: SearchConfig) -> None:
        self._config = config
        # Epochs are the tuner's to give.
        self._base = dataclasses.replace(
            config.train, validation_split="minival", stop_after_epochs=None
        )

    def folder(self, trial_id: str) -> Path:
        """Where everything of a trial is."""
        return self._config.folder / f"trial_{trial_id}"

    def outcome(self, trial_id: str) -> Outcome | None:
        """How a trial ended, None while it has not."""
        file = self.folder(trial_id) / "outcome.json"
        return Outcome(**json.loads(file.read_text())) if file.is_file() else None

    def values(self, trial_id: str) -> dict[str, Any]:
        """What was chosen for a trial, by keras-tuner's names."""
        state = json.loads((self.folder(trial_id) / "trial.json").read_text())
        return state["hyperparameters"]["values"]

    def epochs(self, trial_id: str) -> int:
        """Epochs in the history of a trial's run, with those of the one that it went on from."""
        history = self._run(trial_id) / "history.csv"
        if not history.is_file():
            return 0
        with history.open(newline="") as file:
            return sum(1 for _ in csv.DictReader(file))

    def silent_s(self, trial_id: str) -> float:
        """Seconds in which a trial that runs has logged nothing."""
        folder = self.folder(trial_id)
        # The first is written as the trial is given to a worker, the second as its run begins.
        files = [folder / name for name in ("trial.json", "train.yaml", "train.log")]
        files.append(Run(self._run(trial_id)).log_file)
        return time.time() - max(file.stat().st_mtime for file in files if file.is_file())

    def with_values(self, values: dict[str, Any]) -> TrainConfig:
        """What a trial with these values starts from.

        Raises:
            BadInput: there is no such field, or it does not take the value.
        """
        return with_values(self._base, values)

    def best_config(self, trial_id: str) -> TrainConfig:
        """What trains from scratch, for all epochs, what a trial has tried."""
        folder = self._config.folder
        chosen = self.with_values(searched(self.values(trial_id)))
        return dataclasses.replace(
            chosen,
            run=self._config.train.run.with_name(f"{folder.name}-best-{trial_id}"),
            accumulation_steps=self.outcome(trial_id).accumulation_steps,
        )

    def prune(self, trial_id: str) -> None:
        """Removes the checkpoints of a trial."""
        shutil.rmtree(self._run(trial_id) / "checkpoints", ignore_errors=True)

    def run(self, trial_id: str, interruption: Interruption) -> Outcome:
        """Trains with the trial's values, or goes on with that; gives the outcome, also if known.

        A trial that Hyperband promotes goes on from the run of the one it comes from. Where
        memory runs out, half the images are held at a time, once.

        Raises:
            Stopped: this process was asked to stop.
        """
        if known := self.outcome(trial_id):
            return known
        top1, reason = None, None
        try:
            top1 = self._train(trial_id, self._begun(trial_id), interruption)
        except (BadInput, Failed) as error:
            reason = str(error)
        outcome = Outcome(top1, reason, self._accumulation_steps(trial_id))
        file = self.folder(trial_id) / "outcome.json"
        atomic.write_text(file, json.dumps(dataclasses.asdict(outcome), indent=2))
        return outcome

    def _run(self, trial_id: str) -> Path:
        return self.folder(trial_id) / "run"

    def _config_file(self, trial_id: str) -> Path:
        return self.folder(trial_id) / "train.yaml"

    def _accumulation_steps(self, trial_id: str) -> int | None:
        """Of the config that was run last, None where none was."""
        file = self._config_file(trial_id)
        return yaml.safe_load(file.read_text())["accumulation_steps"] if file.is_file() else None

    def _begun(self, trial_id: str) -> TrainConfig:
        """What a trial is to run, with its run's folder as that of the trial it comes from."""
        values, run = self.values(trial_id), self._run(trial_id)
        config = dataclasses.replace(
            self.with_values(searched(values)),
            run=run,
            stop_after_epochs=values.get("tuner/epochs"),
        )
        past = values.get("tuner/trial_id")
        if past is None:
            return config
        if not run.exists():
            # Neither are the result nor what TensorBoard shows of the other one this run's.
            without = shutil.ignore_patterns("metrics.json", "tensorboard")
            with atomic.replacing(run) as partial:
                shutil.copytree(self._run(past), partial, ignore=without)
        steps = self.outcome(past).accumulation_steps
        return dataclasses.replace(config, accumulation_steps=steps)

    def _train(self, trial_id: str, config: TrainConfig, interruption: Interruption) -> float:
        """Runs a trial, a second time where memory runs out; gives its top-1."""
        halved = dataclasses.replace(config, accumulation_steps=2 * config.accumulation_steps)
        if self._accumulation_steps(trial_id) != halved.accumulation_steps:
            try:
                return self._attempt(trial_id, config, interruption)
            except OutOfMemory:
                pass
        try:
            return self._attempt(trial_id, halved, interruption)
        except Failed as error:
            raise Failed(
                f"out of memory; then with accumulation_steps {halved.accumulation_steps}: {error}"
            ) from error

    def _attempt(self, trial_id: str, config: TrainConfig, interruption: Interruption) -> float:
        """Runs `pipelines.train` in a process of its own; gives the top-1 of its last epoch.

        Raises:
            OutOfMemory: it took more memory than there is, or than is allowed.
            Failed: it ended otherwise without a result, or did not go on; the message says why.
            Stopped: this process was asked to stop.
        """
        file = self._config_file(trial_id)
        log = file.with_name("train.log")
        atomic.write_text(file, dump(config))
        with log.open("a") as errors:
            begins = errors.tell()
            process = subprocess.Popen(
                bound([*TRAIN, "--config", file]),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                # Signals of the terminal reach it through this process alone.
                start_new_session=True,
            )
        try:
            self._watch(process, trial_id, interruption)
        finally:
            process.kill()
            process.wait()
        metrics = Run(config.run).metrics()
        if process.returncode == 0 and metrics:
            return metrics["top1"]
        if interruption.asked:
            raise Stopped(STOPPED)
        raise _failure(process.returncode, log.read_bytes()[begins:].decode(errors="replace"))

    def _watch(self, process: subprocess.Popen, trial_id: str, interruption: Interruption) -> None:
        """Until a trial's process ends, or goes past a limit.

        Memory is looked at from outside: what TensorFlow reserves, which RLIMIT_AS counts, is
        several times what it holds, and where RLIMIT_DATA or that is met it aborts with a message
        about threads.
        """
        limit_gib, timeout_s = self._config.trial_memory_gib, self._config.trial_timeout_s
        while process.poll() is None:
            if interruption.asked:
                end([process])
                return
            if limit_gib and (held_gib := _resident_gib(process.pid)) > limit_gib:
                raise OutOfMemory(
                    f"out of memory: {held_gib:.2f} GiB held, trial_memory_gib is {limit_gib:g}"
                )
            if self.silent_s(trial_id) > timeout_s:
                raise Failed(f"hung: nothing logged for {timeout_s:g} s, its trial_timeout_s")
            time.sleep(WATCHED_EVERY_S)


def searched(values: dict[str, Any]) -> dict[str, Any]:
    """A trial's values without those that keras-tuner keeps for itself (`tuner/epochs`, ...)."""
    return {field: value for field, value in values.items() if not field.startswith("tuner/")}


def with_values(base: TrainConfig, values: dict[str, Any]) -> TrainConfig:
    """A training config with some fields, named with dots, replaced.

    Raises:
        BadInput: there is no such field, or it does not take the value.
    """
    overrides = [f"--{field}={value}" for field, value in values.items()]
    with tempfile.TemporaryDirectory() as folder:
        base_file = Path(folder) / "base.yaml"
        base_file.write_text(dump(base))
        return parse(TrainConfig, ["--config", str(base_file), *overrides])


def _resident_gib(pid: int) -> float:
    """Memory of a process and all that it started, shared pages of each counted."""
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        return sum(member.memory_info().rss for member in family) / 2**30
    except psutil.NoSuchProcess:
        return 0.0


def _failure(status: int, log: str) -> Failed:
    """Why a process ended with a status, from the last lines that it wrote."""
    lines = [line.strip() for line in log.splitlines() if line.strip()][-50:]
    last = next((line for line in reversed(lines) if _REASON.match(line)), "")
    told = (last or "".join(lines[-1:])).removeprefix("failed: ").removeprefix("error: ")
    told = told[:_MAX_REASON_CHARS]
    if status == -signal.SIGKILL:
        return OutOfMemory("out of memory: killed by SIGKILL, the kernel's way to make room")
    if any(map(_OUT_OF_MEMORY.match, lines)):
        return OutOfMemory(f"out of memory: {told}")
    ending = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    return Failed(f"{ending}: {told}" if told else ending)
