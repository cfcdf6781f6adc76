"""A shell for the commands of a page, in a process that has imported TensorFlow already.

What begins with `python` and needs nothing of bash runs in a fork, where it finds what a fresh
interpreter would take seconds to import; all else runs in bash. Reads requests from standard input,
a list in JSON a line, and answers each with a number: `["start", FOLDER, COMMAND, OUTPUT]` with the
process, `["wait", PROCESS]` and `["end", PROCESS]`, which sends SIGTERM first, with its status.
"""

import json
import os
import runpy
import shlex
import signal
import sys
from pathlib import Path

import keras  # noqa: F401
import matplotlib.pyplot  # noqa: F401
import tensorflow as tf  # noqa: F401
import tensorflow_datasets as tfds  # noqa: F401

OF_BASH = set("$|;&<>`*~\n")


def start(folder: str, command: str, output: str) -> int:
    process = os.fork()
    if process:
        return process
    os.chdir(folder)
    for number, file in enumerate((os.devnull, output, output)):
        os.dup2(os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND), number)
    program, *arguments = shlex.split(command, comments=True)
    if program != "python" or not OF_BASH.isdisjoint(command):
        os.execvp("bash", ["bash", "-c", command])
    python(arguments)
    sys.exit()


def python(arguments: list[str]) -> None:
    """What `python ARGUMENTS` does: `-m MODULE ...` or `FILE ...`."""
    sys.orig_argv[1:] = arguments
    if arguments[0] == "-m":
        sys.path[0] = str(Path.cwd())
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = str(Path(arguments[0]).resolve().parent)
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")


def wait(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def end(process: int) -> int:
    os.kill(process, signal.SIGTERM)
    return wait(process)


if __name__ == "__main__":
    requests = {"start": start, "wait": wait, "end": end}
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        print(requests[name](*arguments), flush=True)
