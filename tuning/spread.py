"""Trials in several processes: keras-tuner's chief, which chooses, and its workers."""

import contextlib
import dataclasses
import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Protocol, TypeVar

import grpc
import tensorflow as tf
from keras_tuner.engine.trial import Trial, TrialStatus
from keras_tuner.src.distribute.oracle_chief import OracleServicer
from keras_tuner.src.distribute.oracle_client import OracleClient
from keras_tuner.src.protos import get_service_grpc

from pipelines import atomic
from pipelines.command import load
from pipelines.errors import BadInput, Failed, Stopped
from pipelines.training.children import bound, end
from pipelines.training.interruption import Interruption
from tuning.config import SearchConfig, WorkerConfig
from tuning.oracles import Durable
from tuning.trials import STOPPED, Trials

ASKED_AGAIN_EVERY_S = 0.5
# Workers that wait for a trial are told within this that there is none.
FAREWELL_S = 10.0

Answer = TypeVar("Answer")


class Chooser(Protocol):
    """An oracle, or one that is asked over the network."""

    def create_trial(self, tuner_id: str) -> Trial: ...

    def end_trial(self, trial: Trial) -> None: ...


@dataclass(frozen=True)
class Work:
    """What a worker did."""

    search: str
    worker: str
    trials: int

    def __str__(self) -> str:
        return f"{self.search} has no more trials; {self.trials} were run by {self.worker}"


def work(chooser: Chooser, worker: str, trials: Trials) -> int:
    """Runs one trial after another until there are no more; gives how many.

    Raises:
        Stopped: this process was asked to stop.
    """
    count = 0
    with Interruption() as interruption:
        while (trial := chooser.create_trial(worker)).status != TrialStatus.STOPPED:
            if trial.status == TrialStatus.IDLE:
                time.sleep(ASKED_AGAIN_EVERY_S)
            else:
                outcome = trials.run(trial.trial_id, interruption)
                status = TrialStatus.FAILED if outcome.reason else TrialStatus.COMPLETED
                # Not the oracle's own, which it has not ended yet.
                chooser.end_trial(Trial(trial.hyperparameters, trial.trial_id, status))
                count += 1
            if interruption.asked:
                raise Stopped(STOPPED)
    return count


def join(config: WorkerConfig) -> Work:
    """Runs trials of a search that a chief runs, as long as there are any.

    Raises:
        BadInput: no search there, or one without a chief; another worker of that name.
        Failed: the chief does not answer as it should.
        Stopped: this process was asked to stop.
    """
    recorded = config.search / "search.yaml"
    if not recorded.is_file():
        raise BadInput(f"no search in {str(config.search)!r}; a chief makes one")
    search = dataclasses.replace(load(SearchConfig, recorded), search=config.search)
    address = config.chief or search.chief
    if not address:
        raise BadInput(f"the search in {str(config.search)!r} has no chief; --chief HOST:PORT")
    worker = config.worker or os.environ.get("KERASTUNER_TUNER_ID") or socket.gethostname()
    if Path(worker).name != worker or worker == "..":
        raise BadInput(f"worker is {worker!r}; a name that a file can have")
    with atomic.locked(config.search / "workers" / worker), quiet():
        count = work(Chief(address, worker), worker, Trials(search))
    return Work(str(config.search), worker, count)


def wait_for_workers(oracle: Durable, address: str, folder: Path) -> None:
    """Answers workers until there are no more trials.

    Raises:
        BadInput: the address cannot be had.
        Stopped: this process was asked to stop.
    """
    with served(oracle, address) as (service, at), Interruption() as interruption:
        joining = f"python -m tuning.worker {quote(str(folder))}"
        print(f"waiting for workers at {at}: {joining}", file=sys.stderr)
        while not (service.stop_triggered and not oracle.ongoing_trials):
            if interruption.asked:
                raise Stopped(STOPPED)
            time.sleep(ASKED_AGAIN_EVERY_S)
        deadline_s = time.monotonic() + FAREWELL_S
        while not oracle.idle() and time.monotonic() < deadline_s:
            time.sleep(ASKED_AGAIN_EVERY_S)


def run_local_workers(oracle: Durable, config: SearchConfig) -> None:
    """Runs workers on this machine until there are no more trials; one that is killed comes back.

    Raises:
        BadInput: there are GPUs, and fewer than workers.
        Failed: a worker did not end well.
        Stopped: this process was asked to stop.
    """
    shares = gpu_shares(config.local_workers)
    with served(oracle, "127.0.0.1:0") as (_, address), Interruption() as interruption:
        workers = {name: _start(name, config, address, gpus) for name, gpus in shares.items()}
        try:
            while unfinished := [name for name in workers if _unfinished(workers[name])]:
                if interruption.asked:
                    raise Stopped(STOPPED)
                # Others would wait for the trial that it has.
                if any((worker.returncode or 0) > 0 for worker in workers.values()):
                    break
                for name in unfinished:
                    if status := workers[name].returncode:
                        told = signal.Signals(-status).name
                        print(f"{name} ended with {told} and is started again", file=sys.stderr)
                        workers[name] = _start(name, config, address, shares[name])
                time.sleep(ASKED_AGAIN_EVERY_S)
        finally:
            end(list(workers.values()))
    if statuses := [w.returncode for w in workers.values() if w.returncode > 0]:
        raise Failed(f"workers ended with exit status {', '.join(map(str, statuses))}")


def _unfinished(worker: subprocess.Popen) -> bool:
    """Whether it runs, or was killed."""
    return worker.poll() is None or worker.returncode < 0


def gpu_shares(count: int) -> dict[str, str | None]:
    """Which GPUs each worker sees, as CUDA_VISIBLE_DEVICES says it; None where there are none.

    Raises:
        BadInput: there are some, and fewer than workers.
    """
    found = [str(index) for index, _ in enumerate(tf.config.list_physical_devices("GPU"))]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",")[: len(found)] if visible else found
    if 0 < len(gpus) < count:
        raise BadInput(f"local_workers is {count}, and there are {len(gpus)} GPU(s) for them")
    return {f"local-{i}": ",".join(gpus[i::count]) or None for i in range(count)}


class Chief:
    """The oracle of a chief, which may be killed and started again meanwhile.

    Args:
        address: `HOST:PORT`.
        worker: the name of this worker.
    """

    def __init__(self, address: str, worker: str) -> None:
        host, _, port = address.rpartition(":")
        os.environ |= {
            "KERASTUNER_ORACLE_IP": host,
            "KERASTUNER_ORACLE_PORT": port,
            "KERASTUNER_TUNER_ID": worker,
        }
        self._client = OracleClient(None)

    def create_trial(self, tuner_id: str) -> Trial:
        return _answer(self._client.create_trial, tuner_id)

    def end_trial(self, trial: Trial) -> None:
        _answer(self._client.end_trial, trial)


def _answer(question: Callable[..., Answer], subject: object) -> Answer:
    """What the chief answers; asked again where it was killed over it."""
    while True:
        try:
            return question(subject)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE:
                raise Failed(f"the chief answers {error.code().name}: {error.details()}") from error
            time.sleep(ASKED_AGAIN_EVERY_S)


@contextlib.contextmanager
def served(oracle: Durable, address: str) -> Iterator[tuple[OracleServicer, str]]:
    """Answers workers at `HOST:PORT`, where 0 is any free port; gives that with the port it is.

    Raises:
        BadInput: the address cannot be had.
    """
    # Two chiefs that share a port would each get some of the questions.
    server = grpc.server(ThreadPoolExecutor(1), options=[("grpc.so_reuseport", 0)])
    service = OracleServicer(oracle)
    get_service_grpc().add_OracleServicer_to_server(service, server)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise BadInput(f"cannot listen at {address!r}; give another --chief HOST:PORT") from error
    server.start()
    try:
        yield service, f"{address.rpartition(':')[0]}:{port}"
    finally:
        server.stop(None).wait()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """keras-tuner prints what a result for a program must not have in it."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def _start(name: str, config: SearchConfig, address: str, gpus: str | None) -> subprocess.Popen:
    command = [sys.executable, "-m", "tuning.worker", config.folder, "--worker", name]
    return subprocess.Popen(
        bound([*command, "--chief", address]),
        env=os.environ | ({"CUDA_VISIBLE_DEVICES": gpus} if gpus else {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        # Signals of the terminal reach it through this process alone.
        start_new_session=True,
    )
