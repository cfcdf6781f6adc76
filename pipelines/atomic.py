"""Outputs appear whole or not at all, and have one writer at a time."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pipelines.errors import BadInput

_PREFIX = ".partial-"


def neighbour(path: Path) -> Path:
    """Where the unfinished `path` lies: hidden, beside it, on the same disk."""
    return path.with_name(_PREFIX + path.name)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary neighbour of `path` to write to, and renames it to `path` when whole.

    The neighbour ends in `path`'s own name, so that writers which look at the suffix see it. If
    the body raises, the neighbour is removed and `path` is as it was; what a killed process left
    behind is removed at the next attempt.

    Args:
        path: a file (replaced if it exists) or a directory (which must not exist).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = neighbour(path)
    _remove(partial)
    try:
        yield partial
        _flush(partial)
        partial.replace(path)
    finally:
        _remove(partial)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Makes a folder if need be and holds it; the lock goes with the process, however it ends.

    Raises:
        BadInput: another process holds it.
    """
    with ExitStack() as held:
        while not _hold(folder, held):
            held.close()
        yield


@contextmanager
def in_turn(folder: Path) -> Iterator[None]:
    """Holds a folder once whoever holds it lets go: for what takes a moment."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _hold(folder: Path, held: ExitStack) -> bool:
    """Locks a folder, unless the process that held it was just removing it; tells which."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        held.callback(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), folder.stat())
    except FileNotFoundError:
        return False
    except BlockingIOError as error:
        raise BadInput(f"{str(folder)!r} is in use by another process; wait for it") from error


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(text)


def _flush(path: Path) -> None:
    """Waits until the disk has it all: after a power cut, a name may be there without content."""
    for written in (path, *path.rglob("*")):
        descriptor = os.open(written, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
