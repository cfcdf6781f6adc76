"""A server to test, and a client that knows nothing of ours."""

import base64
import contextlib
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from photographs import encode
from PIL import Image

from pipelines.config import ServeConfig
from pipelines.serving.observing import Metrics
from pipelines.serving.server import http_server, open_models


class Answer(NamedTuple):
    status: int
    body: Any
    headers: Any


@contextlib.contextmanager
def serving(models: Path, **options: Any) -> Iterator[str]:
    """A server in a thread of this process, on a free port; gives its address."""
    config = ServeConfig(models, port=0, **{"poll_s": 0.05} | options)
    metrics = Metrics()
    server = http_server(config, open_models(config, metrics), metrics)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def ask(url: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
    """A GET, or a POST when there is a body: bytes as they are, anything else as JSON."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers or {})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return Answer(response.status, _read(response), response.headers)
    except urllib.error.HTTPError as error:
        with contextlib.closing(error):
            return Answer(error.code, _read(error), error.headers)


def _read(response: Any) -> Any:
    text = response.read()
    return json.loads(text) if "json" in response.headers.get("content-type", "") else text.decode()


def until(holds, within_s: float = 30.0) -> None:
    """Waits until something holds; fails when it does not in time."""
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end, "it did not come to hold in time"
        time.sleep(0.02)


def one_colour(rgb: tuple[int, int, int], size=(40, 30), form: str = "PNG") -> bytes:
    return encode(Image.new("RGB", size, rgb), form, {})


def b64(encoded: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(encoded).decode()}
