"""Fetches a published file once: resumable, checked against its hash, never half there.

A file arrives as `NAME.part` and takes its name only when its hash is right. Every process writes
the same bytes at the same offsets of the part, so several may fetch one file at once.
"""

import contextlib
import hashlib
import os
import sys
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
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
            file's hash is another (a download is then removed, a file that was there is not).
    """
    path = folder / url.rpartition("/")[2]
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        try:
            _download(url, part)
        except (OSError, HTTPException) as error:
            raise ValueError(
                f"cannot download {url} ({error}); try again to resume, or put the file at {path}"
            ) from error
        # Missing when another process completed the same file a moment ago.
        with contextlib.suppress(FileNotFoundError):
            _accept(part, digest, url)
            part.replace(path)
    found = _hash(path, digest)
    if found != digest:
        raise ValueError(f"{path} has {found}, not the published {digest}; remove it to fetch anew")
    return path


def _accept(part: Path, digest: str, url: str) -> None:
    found = _hash(part, digest)
    if found != digest:
        part.unlink()
        raise ValueError(
            f"{url} gave a file with {found}, not the published {digest}; it is removed, try again"
        )


def _hash(path: Path, digest: str) -> str:
    """The file's hash by the algorithm of `digest`, to as many digits."""
    algorithm, _, digits = digest.partition(":")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    return f"{algorithm}:{found[: len(digits)]}"


def _download(url: str, part: Path) -> None:
    """Continues `part` to its full length."""
    part.touch()
    start = part.stat().st_size
    request = Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urlopen(request, timeout=_TIMEOUT_S)
    except HTTPError as error:
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # Nothing is left to fetch: the hash will tell what is there.
        raise
    with response:
        _write(response, part, start if response.status == HTTPStatus.PARTIAL_CONTENT else 0)


def _write(response: HTTPResponse, part: Path, start: int) -> None:
    """Writes the body at offset `start`.

    Raises:
        ConnectionError: the body ended early.
    """
    length = response.headers["Content-Length"]
    total = start + int(length) if length else None
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    with (
        Progress(*columns, console=console, disable=not sys.stderr.isatty()) as progress,
        part.open("r+b") as file,
    ):
        task = progress.add_task(part.stem, total=total, completed=start)
        file.seek(start)
        while chunk := response.read(_CHUNK_BYTES):
            file.write(chunk)
            progress.advance(task, len(chunk))
        end = file.tell()
    if total is not None and end < total:
        raise ConnectionError(f"the connection closed after {end:,} of {total:,} bytes")
