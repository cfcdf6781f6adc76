"""Fetches a published file once: resumable, checked against its hash, never half there.

A file arrives as `NAME.part` and takes its name only when its hash is right. One process at a time
downloads into a folder; others wait for it (POSIX file locks).
"""

import fcntl
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

_CHUNK_BYTES = 1 << 20
_TIMEOUT_S = 30


def cache_folder() -> Path:
    """`$KERAS_ZOO_CACHE`, or `~/.cache/keras_zoo`."""
    return Path(os.environ.get("KERAS_ZOO_CACHE") or Path.home() / ".cache" / "keras_zoo")


def fetch(url: str, digest: str, folder: Path) -> Path:
    """The path, in `folder`, of the file that `url` names; downloaded if it is not there.

    Args:
        url: an http(s) address whose last part is the file's name.
        digest: "algorithm:hexadecimal", the digits those of the whole hash or its first few.
        folder: the cache; made if missing. A file put there by hand is checked all the same.

    Raises:
        ValueError: the download failed (what arrived is kept, and continued the next time), or the
            file's hash is another (a download is then removed, a file that was there is not), or
            the folder cannot be made or written to.
    """
    path = folder / url.rpartition("/")[2]
    if not path.exists():
        with _alone_in(folder):
            if not path.exists():
                _download(url, digest, path)
    found = _hash(path, digest)
    if found != digest:
        raise ValueError(f"{path} has {found}, not the published {digest}; remove it to fetch anew")
    return path


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Holds the folder, made if missing, against other processes."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("a")
    except OSError as error:
        raise ValueError(
            f"cannot use the cache folder {folder} ({error.strerror}); "
            "set KERAS_ZOO_CACHE to one that can be written to"
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _download(url: str, digest: str, path: Path) -> None:
    part = path.with_name(path.name + ".part")
    try:
        _complete(url, part)
    except (OSError, HTTPException) as error:
        raise ValueError(
            f"cannot download {url} ({error}); try again to resume, or put the file at {path}"
        ) from error
    found = _hash(part, digest)
    if found != digest:
        part.unlink()
        raise ValueError(
            f"{url} gave a file with {found}, not the published {digest}; it is removed, try again"
        )
    part.replace(path)


def _hash(path: Path, digest: str) -> str:
    """The file's hash by the algorithm of `digest`, to as many digits."""
    algorithm, _, digits = digest.partition(":")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    return f"{algorithm}:{found[: len(digits)]}"


def _complete(url: str, part: Path) -> None:
    """Continues `part`, if it is there, to its full length."""
    start = part.stat().st_size if part.exists() else 0
    request = Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urlopen(request, timeout=_TIMEOUT_S)
    except HTTPError as error:
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # Nothing is left to fetch: the hash will tell what is there.
        raise
    with response:
        resumed = response.status == HTTPStatus.PARTIAL_CONTENT
        with part.open("ab" if resumed else "wb") as file:
            _copy(response, file)


def _copy(response: HTTPResponse, file: BinaryIO) -> None:
    """Appends the body of the response to the file.

    Raises:
        ConnectionError: the body ended early.
    """
    length = response.headers["Content-Length"]
    total = file.tell() + int(length) if length else None
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(Path(file.name).stem, total=total, completed=file.tell())
        while chunk := response.read(_CHUNK_BYTES):
            file.write(chunk)
            progress.advance(task, len(chunk))
    if total is not None and file.tell() < total:
        raise ConnectionError(f"the connection closed after {file.tell():,} of {total:,} bytes")
