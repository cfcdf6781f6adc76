"""The same function over many pieces of work, in as many processes as it is worth."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

import tensorflow as tf

from pipelines.errors import Failed

Work = TypeVar("Work")
Done = TypeVar("Done")
Map = Callable[[Callable[[Work], Done], Iterable[Work]], Iterator[Done]]


class Step(NamedTuple):
    """How much of the work a piece of it was: images, and those of them that are bad."""

    images: int
    bad: int = 0


def available_cores() -> int:
    """The processor's cores that this process may use."""
    return len(os.sched_getaffinity(0))


@contextmanager
def process_map(workers: int) -> Iterator[Map]:
    """Gives a `map` that runs in this many processes and yields results in order.

    One worker is this process itself. The others die with this process, however it ends.

    Raises:
        Failed: a worker was killed.
    """
    with native_code_silenced():
        if workers == 1:
            yield map
            return
        # TensorFlow cannot be forked once it runs: workers are forked from a server that imported
        # it and did nothing with it.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["pipelines.data.preparation"])
        executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
        try:
            yield executor.map
        except BrokenProcessPool as error:
            raise Failed(
                "a worker process was killed, for want of memory perhaps; the same command goes "
                "on from here, with fewer --workers if need be"
            ) from error
        finally:
            executor.shutdown(wait=True, cancel_futures=True)


@contextmanager
def native_code_silenced() -> Iterator[None]:
    """Lets only Python write to standard error, here and in the processes started meanwhile.

    TensorFlow and libjpeg have a note there for every broken image, and whole pages at the start.
    """
    python_stderr = sys.stderr
    python_stderr.flush()
    own = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        with os.fdopen(own, "w", closefd=False) as sys.stderr:
            yield
    finally:
        sys.stderr = python_stderr
        os.dup2(own, 2)
        os.close(own)


def end_with_parent() -> None:
    """Ends this process, which multiprocessing started, when its parent ends, even by `kill -9`."""

    def wait_and_end() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait_and_end, daemon=True).start()


def _start_worker() -> None:
    """Leaves Ctrl-C and the GPUs to the parent, and ends when it does."""
    tf.config.set_visible_devices([], "GPU")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
