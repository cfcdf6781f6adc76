"""Processes that do not outlive the one that started them, however that one ends."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence

# A process that is asked to end has this long to do so.
GRACE_S = 30.0

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
