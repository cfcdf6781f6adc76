"""Processes that take turns: whose turn it is not is stopped (SIGSTOP), and costs nothing.

A process says a line of JSON when it is ready, and answers each line that it is sent with the
measurement of one pass, as a line of JSON.
"""

import json
import os
import signal
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from pipelines.training.children import bound


def start(command: list, log: Path, children: ExitStack) -> tuple[subprocess.Popen, dict[str, Any]]:
    """A process that waits for its turn, and what it said when it was ready.

    Ends, with its own children, when `children` closes.

    Raises:
        RuntimeError: it did not start; the message is its last line.
    """
    peer = launch(command, log, children)
    ready = peer.stdout.readline()
    if not ready:
        raise RuntimeError(log.read_text().strip().rpartition("\n")[2])
    os.killpg(peer.pid, signal.SIGSTOP)
    return peer, json.loads(ready)


def launch(command: list, log: Path, children: ExitStack) -> subprocess.Popen:
    """A process that ends, with its own children, when `children` closes."""
    quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"}
    with log.open("w") as errors:
        peer = subprocess.Popen(
            bound(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=quiet,
            start_new_session=True,
        )
    children.callback(_end, peer)
    return peer


def turn(peer: subprocess.Popen) -> dict[str, Any]:
    """One pass of a process, as it measured it."""
    os.killpg(peer.pid, signal.SIGCONT)
    print(file=peer.stdin, flush=True)
    measured = json.loads(peer.stdout.readline())
    os.killpg(peer.pid, signal.SIGSTOP)
    return measured


def end_children_with_this_process() -> None:
    """However this process is asked to end, its `ExitStack`s close first."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)


def _end(peer: subprocess.Popen) -> None:
    with suppress(ProcessLookupError):
        os.killpg(peer.pid, signal.SIGKILL)
    peer.wait()
