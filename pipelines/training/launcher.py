"""Several workers on this machine, to try what runs on several machines."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import BinaryIO

from pipelines.command import dump
from pipelines.config import TrainConfig
from pipelines.errors import Failed, Stopped
from pipelines.training.children import bound, end
from pipelines.training.interruption import Interruption


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
        Failed: an exit status was not 0; the message names all.
        Stopped: they were asked to stop, and did.
    """
    with Interruption() as interruption:
        workers = _start(command, _free_addresses(count))
        try:
            _wait(workers, interruption)
        finally:
            end(workers)
    if any(worker.returncode for worker in workers):
        statuses = ", ".join(str(worker.returncode) for worker in workers)
        raise Failed(
            f"the workers' exit statuses are {statuses}; type the same command again, and they go "
            "on from the newest checkpoint"
        )
    if interruption.asked:
        raise Stopped("the workers stopped; type the same command again, and they go on")


def _start(command: list[str], addresses: list[str]) -> list[subprocess.Popen]:
    workers = []
    for index in range(len(addresses)):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        worker = subprocess.Popen(
            bound(command),
            env=os.environ | {"TF_CONFIG": json.dumps(task)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            # Signals of the terminal reach the workers through this process alone.
            start_new_session=True,
        )
        threading.Thread(target=_pass_on, args=(index, worker.stderr), daemon=True).start()
        workers.append(worker)
    return workers


def _pass_on(index: int, lines: BinaryIO) -> None:
    for line in lines:
        print(f"[worker {index}] {line.decode(errors='replace').rstrip()}", file=sys.stderr)


def _wait(workers: list[subprocess.Popen], interruption: Interruption) -> None:
    """Until all have ended, or one has ended badly."""
    told = False
    while any(worker.poll() is None for worker in workers):
        if any(worker.returncode for worker in workers):
            return
        if interruption.asked and not told:
            told = True
            for worker in workers:
                worker.send_signal(signal.SIGTERM)
        time.sleep(0.1)


def _free_addresses(count: int) -> list[str]:
    """`127.0.0.1:PORT`, that many; held together so that they differ."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [f"127.0.0.1:{held.getsockname()[1]}" for held in sockets]
    finally:
        for held in sockets:
            held.close()
