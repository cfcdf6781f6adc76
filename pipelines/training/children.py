"""Processes that do not outlive the one that started them, however that one ends."""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from pipelines.errors import Failed, Stopped
from pipelines.training.interruption import Interruption

# A process that is asked to end has this long to do so.
GRACE_S = 30.0
WATCHED_EVERY_S = 0.2

# Asks Linux for a SIGKILL at the end of its parent, and becomes the command. Where the parent ended
# before it asked, it is another's child by now.
_BOUND = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execvp(sys.argv[2], sys.argv[2:])
"""


def bound(command: Sequence[object]) -> list[str]:
    """A command that, on Linux, is killed when this process ends, be it by a SIGKILL.

    Not by `preexec_fn`, which is unsafe where there are threads, as TensorFlow has them. To be
    started from a thread that lasts as long as the process: the kernel goes by the thread.
    """
    arguments = [str(part) for part in command]
    if sys.platform != "linux":
        return arguments
    return [sys.executable, "-S", "-c", _BOUND, str(os.getpid()), *arguments]


def end(children: Sequence[subprocess.Popen]) -> None:
    """Ends those that still run."""
    for child in children:
        child.terminate()
    deadline_s = time.monotonic() + GRACE_S
    for child in children:
        try:
            child.wait(max(0.0, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def run_stage(name: str, arguments: Sequence[object]) -> dict[str, Any]:
    """Runs `python -m pipelines.NAME` in a process of its own; gives what it prints with `--json`.

    Raises:
        Failed: it did not end well; it has said why.
        Stopped: this process, or that one, was asked to stop.
    """
    line = ["python", "-m", f"pipelines.{name}", *map(str, arguments)]
    print(shlex.join(line), file=sys.stderr)
    with Interruption() as interruption:
        process = subprocess.Popen(
            bound([sys.executable, *line[1:], "--json"]),
            stdout=subprocess.PIPE,
            text=True,
            # Signals of the terminal reach it through this process alone.
            start_new_session=True,
        )
        printed = _printed(process, interruption)
    if printed and not process.returncode:
        return json.loads(printed)
    if interruption.asked or not process.returncode:
        raise Stopped(f"{name} was asked to stop; type the same command again to go on")
    raise Failed(f"{shlex.join(line)} ended with status {process.returncode}; it says why above")


def _printed(process: subprocess.Popen, interruption: Interruption) -> str:
    """What a process prints until it has ended, which it is asked to where this one is."""
    try:
        while not interruption.asked:
            try:
                return process.communicate(timeout=WATCHED_EVERY_S)[0]
            except subprocess.TimeoutExpired:
                pass
    finally:
        end([process])
    return process.communicate()[0]
