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
from pipelines.training.interruption import Interruption

# A worker that is asked to end has this long to do so.
GRACE_S = 30.0


def launch(config: TrainConfig) -> None:
    """Runs `pipelines.train` in `local_workers` processes, each of which knows of the others.

    What they print is passed on to standard error, behind the worker's number. When one ends
    badly, so do the others. SIGTERM and SIGINT are passed on to them.

    Raises:
        Failed: a worker's exit status was not 0.
        Stopped: they were asked to stop.
    """
    with tempfile.TemporaryDirectory() as folder, Interruption() as interruption:
        config_file = Path(folder) / "config.yaml"
        config_file.write_text(dump(config))
        workers = _start(config_file, _free_addresses(config.local_workers))
        try:
            _wait(workers, interruption)
        finally:
            _end(workers)
        statuses = [worker.returncode for worker in workers]
    if any(statuses):
        raise Failed(
            f"the workers ended with {', '.join(map(str, statuses))}; "
            "type the same command again, and they go on from the newest checkpoint"
        )
    if interruption.asked:
        raise Stopped(f"{config.run} stopped; type the same command again, and it goes on")


def _start(config_file: Path, addresses: list[str]) -> list[subprocess.Popen]:
    workers = []
    for index in range(len(addresses)):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        worker = subprocess.Popen(
            [sys.executable, "-m", "pipelines.train", "--config", config_file],
            env=os.environ | {"TF_CONFIG": json.dumps(task)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # Signals of the terminal reach the workers through this process alone.
            start_new_session=True,
        )
        threading.Thread(target=_pass_on, args=(index, worker.stdout), daemon=True).start()
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


def _end(workers: list[subprocess.Popen]) -> None:
    """Ends those that still run."""
    for worker in workers:
        worker.terminate()
    deadline_s = time.monotonic() + GRACE_S
    for worker in workers:
        try:
            worker.wait(max(0.0, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


def _free_addresses(count: int) -> list[str]:
    """`127.0.0.1:PORT`, that many; held together so that they differ."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [f"127.0.0.1:{held.getsockname()[1]}" for held in sockets]
    finally:
        for held in sockets:
            held.close()
