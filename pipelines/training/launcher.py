"""Several workers on this machine, to try what runs on several machines."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from pipelines.command import dump
from pipelines.config import TrainConfig
from pipelines.errors import Failed, Stopped
from pipelines.training.children import bound, end
from pipelines.training.interruption import Interruption

# How a worker ends that did as it was asked: by itself, before it trained, or when its time was up.
STOPPED = {0, -signal.SIGTERM, -signal.SIGKILL}


def launch(config: TrainConfig) -> None:
    """Runs `pipelines.train` in `local_workers` processes, each of which knows of the others.

    Raises:
        Failed: one of them did not end well.
        Stopped: they were asked to stop.
    """
    with tempfile.TemporaryDirectory() as folder:
        config_file = Path(folder) / "config.yaml"
        config_file.write_text(dump(config))
        command = [sys.executable, "-m", "pipelines.train", "--config", str(config_file)]
        run_workers(command, config.local_workers)


def run_workers(command: list[str], count: int) -> None:
    """Runs a command that many times at once, as the workers that TF_CONFIG tells of each other.

    What they write to standard error is passed on, behind the worker's number. When one ends
    badly, the others are ended. SIGTERM and SIGINT are passed on to them.

    Raises:
        Failed: an exit status was not 0; the message names all, and what the workers said last.
        Stopped: they were asked to stop, and did.
    """
    with Interruption() as interruption, ThreadPoolExecutor(count) as readers:
        workers = _start(command, free_addresses(count))
        last_lines = [
            readers.submit(_pass_on, index, worker.stderr) for index, worker in enumerate(workers)
        ]
        try:
            _wait(workers, interruption)
        finally:
            end(workers)
    statuses = [worker.returncode for worker in workers]
    if interruption.asked and STOPPED.issuperset(statuses):
        raise Stopped("the workers stopped; type the same command again, and they go on")
    if any(statuses):
        pairs = zip(statuses, last_lines, strict=True)
        said = dict.fromkeys(line.result() for status, line in pairs if status > 0)
        advice = "type the same command again, and they go on from the newest checkpoint"
        raise Failed(f"the workers' exit statuses are {statuses}; {'; '.join(said) or advice}")


def tf_config(addresses: list[str], index: int) -> str:
    """What the environment variable TF_CONFIG tells one of the workers.

    Args:
        addresses: `HOST:PORT` of all.
        index: which of them it is, from 0.
    """
    task = {"type": "worker", "index": index}
    return json.dumps({"cluster": {"worker": addresses}, "task": task})


def _start(command: list[str], addresses: list[str]) -> list[subprocess.Popen]:
    workers = []
    for index in range(len(addresses)):
        worker = subprocess.Popen(
            bound(command),
            env=os.environ | {"TF_CONFIG": tf_config(addresses, index)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            # Signals of the terminal reach the workers through this process alone.
            start_new_session=True,
        )
        workers.append(worker)
    return workers


def _pass_on(index: int, lines: BinaryIO) -> str:
    """Shows a worker's lines until it has ended, and gives the last one."""
    line = ""
    with lines:
        for raw in lines:
            line = raw.decode(errors="replace").rstrip()
            print(f"[worker {index}] {line}", file=sys.stderr)
    return line


def _wait(workers: list[subprocess.Popen], interruption: Interruption) -> None:
    """Until all have ended, or one has ended badly."""
    told = False
    while None in [worker.poll() for worker in workers]:
        if any(worker.returncode for worker in workers):
            return
        if interruption.asked and not told:
            told = True
            for worker in workers:
                worker.send_signal(signal.SIGTERM)
        time.sleep(0.1)


def free_addresses(count: int) -> list[str]:
    """`127.0.0.1:PORT`, that many; held together so that they differ."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [f"127.0.0.1:{held.getsockname()[1]}" for held in sockets]
    finally:
        for held in sockets:
            held.close()
