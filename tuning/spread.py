"""Trials in several processes: keras-tuner's chief, which chooses, and its workers."""

import contextlib
import dataclasses
import io
import json
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
from typing import Any, Protocol

import grpc
import psutil
import tensorflow as tf
from keras_tuner.engine.trial import Trial, TrialStatus
from keras_tuner.src.distribute.oracle_chief import OracleServicer
from keras_tuner.src.protos import get_service, get_service_grpc

from pipelines import atomic
from pipelines.command import load
from pipelines.errors import BadInput, Failed, Stopped
from pipelines.training.children import bound, end
from pipelines.training.interruption import Interruption
from tuning.config import SearchConfig, WorkerConfig
from tuning.oracles import Durable
from tuning.trials import STOPPED, Trials

ASKED_AGAIN_EVERY_S = 0.5
# A chief that has not answered a question by then is asked again.
ANSWERED_WITHIN_S = 10.0
# A worker waits so long for a chief to begin, or to come back.
WAITS_FOR_CHIEF_S = 1800.0
# A trial that has logged nothing for so long is told of.
SILENT_S = 300.0
# Workers that wait for a trial are told within this that there is none.
FAREWELL_S = 10.0
NO_ANSWER = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


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
        Failed: the chief does not answer, or not as it should.
        Stopped: this process was asked to stop.
    """
    search = _begun(config.search)
    address = config.chief or search.chief
    if not address:
        raise BadInput(f"the search in {str(config.search)!r} has no chief; --chief HOST:PORT")
    worker = config.worker or os.environ.get("KERASTUNER_TUNER_ID") or socket.gethostname()
    if Path(worker).name != worker or worker == "..":
        raise BadInput(f"worker is {worker!r}; a name that a file can have")
    folder = _folder(config.search, worker)
    with atomic.locked(folder):
        atomic.write_text(folder / "process.json", json.dumps(_process(os.getpid())))
        count = work(Chief(address), worker, Trials(search))
    return Work(str(config.search), worker, count)


def _begun(folder: Path) -> SearchConfig:
    """What a search was told, once its chief has begun it.

    Raises:
        BadInput: none has.
    """
    recorded = folder / "search.yaml"
    if not recorded.is_file():
        print(
            f"no search in {str(folder)!r} yet; waiting {_minutes(WAITS_FOR_CHIEF_S)} for a chief "
            "to begin it",
            file=sys.stderr,
        )
    deadline_s = time.monotonic() + WAITS_FOR_CHIEF_S
    while not recorded.is_file():
        if time.monotonic() > deadline_s:
            raise BadInput(
                f"no search in {str(folder)!r}; python -m tuning.search DATA --search "
                f"{quote(str(folder))} --role chief --chief HOST:PORT begins it"
            )
        time.sleep(ASKED_AGAIN_EVERY_S)
    return dataclasses.replace(load(SearchConfig, recorded), search=folder)


def _folder(search: Path, worker: str) -> Path:
    """What a worker holds as long as it runs."""
    return search / "workers" / worker


def _process(pid: int) -> dict[str, Any]:
    """What tells a process from all others; none of an ended one that nobody has waited for."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return {}
        return {"host": socket.gethostname(), "pid": pid, "started_s": process.create_time()}
    except psutil.NoSuchProcess:
        return {}


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes"


def wait_for_workers(oracle: Durable, address: str, trials: Trials, folder: Path) -> None:
    """Answers workers until there are no more trials.

    A worker that has ended on this machine has its trial given to the next that asks. Of one on
    another machine nothing but its trial's log is seen; who has long been silent is told.

    Raises:
        BadInput: the address cannot be had.
        Stopped: this process was asked to stop.
    """
    with served(oracle, address) as (service, at), Interruption() as interruption:
        joining = f"python -m tuning.worker {quote(str(folder))}"
        print(f"waiting for workers at {at}: {joining}", file=sys.stderr)
        told: set[str] = set()
        while not service.stop_triggered:
            if interruption.asked:
                raise Stopped(STOPPED)
            _look_after(oracle, trials, folder, told)
            time.sleep(ASKED_AGAIN_EVERY_S)
        deadline_s = time.monotonic() + FAREWELL_S
        while not oracle.idle() and time.monotonic() < deadline_s:
            time.sleep(ASKED_AGAIN_EVERY_S)


def _look_after(oracle: Durable, trials: Trials, folder: Path, told: set[str]) -> None:
    """Releases trials whose workers ended here, and tells once of each that is silent."""
    for worker, trial_id in oracle.under_way().items():
        if _ended_here(_folder(folder, worker)):
            oracle.release(worker)
            print(f"{worker} has ended; who asks next gets its trial {trial_id}", file=sys.stderr)
        elif trial_id not in told and trials.silent_s(trial_id) > SILENT_S:
            told.add(trial_id)
            print(
                f"waiting for {worker}, whose trial {trial_id} has logged nothing for "
                f"{_minutes(SILENT_S)}; if it is gone, python -m tuning.worker "
                f"{quote(str(folder))} --worker {worker} takes the trial up again",
                file=sys.stderr,
            )


def _ended_here(folder: Path) -> bool:
    """Whether a worker has run on this machine, and does not any more."""
    try:
        recorded = json.loads((folder / "process.json").read_text())
    except FileNotFoundError:
        return False
    return recorded["host"] == socket.gethostname() and _process(recorded["pid"]) != recorded


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

    keras-tuner's own client waits an hour for each answer, and cannot be stopped meanwhile.

    Args:
        address: `HOST:PORT`.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        # A channel that failed often is not tried for two minutes otherwise.
        options = [("grpc.max_reconnect_backoff_ms", 1000)]
        self._stub = get_service_grpc().OracleStub(grpc.insecure_channel(address, options))

    def create_trial(self, tuner_id: str) -> Trial:
        request = get_service().CreateTrialRequest(tuner_id=tuner_id)
        return Trial.from_proto(self._answer(self._stub.CreateTrial, request).trial)

    def end_trial(self, trial: Trial) -> None:
        self._answer(self._stub.EndTrial, get_service().EndTrialRequest(trial=trial.to_proto()))

    def _answer(self, question: Callable[..., Any], request: object) -> Any:
        """What the chief answers, asked again as long as it does not."""
        with Interruption() as interruption:
            answer = self._asked(question, request)
            if answer is None:
                print(
                    f"the chief at {self._address} does not answer; waiting "
                    f"{_minutes(WAITS_FOR_CHIEF_S)} for it to be started again",
                    file=sys.stderr,
                )
            deadline_s = time.monotonic() + WAITS_FOR_CHIEF_S
            while answer is None and not interruption.asked:
                if time.monotonic() > deadline_s:
                    raise Failed(
                        f"the chief at {self._address} has not answered for "
                        f"{_minutes(WAITS_FOR_CHIEF_S)}; start it again, then this worker"
                    )
                time.sleep(ASKED_AGAIN_EVERY_S)
                answer = self._asked(question, request)
        if interruption.asked:
            raise Stopped(STOPPED)
        return answer

    def _asked(self, question: Callable[..., Any], request: object) -> Any | None:
        """What the chief answers at once; None where there is none."""
        try:
            return question(request, timeout=ANSWERED_WITHIN_S)
        except grpc.RpcError as error:
            if error.code() not in NO_ANSWER:
                raise Failed(
                    f"the chief at {self._address} answers {error.code().name}: {error.details()}"
                ) from error
            return None


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
