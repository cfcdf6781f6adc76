"""A shell for the commands of a page, in a process that has imported TensorFlow already.

`python -m` runs in a fork, which has what a new process would take seconds to import; all else, and
what needs more of a shell than words, runs in bash. A request is a line of JSON on standard input,
its answer a number: `["start", FOLDER, COMMAND, OUTPUT]` gives the process; `["wait", PROCESS]` and
`["end", PROCESS]`, which sends SIGTERM first, give its status.
"""

import json
import os
import runpy
import shlex
import signal
import sys

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
    if not command.startswith("python -m ") or not OF_BASH.isdisjoint(command):
        os.execvp("bash", ["bash", "-c", command])
    arguments = shlex.split(command)[2:]
    sys.argv, sys.path[0] = arguments, folder
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    sys.exit()


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
