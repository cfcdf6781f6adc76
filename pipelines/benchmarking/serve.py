"""How fast the server answers: `pipelines.serve` in a process of its own, and clients in this one.

Each client sends a photograph as a JPEG's bytes and waits for its answer before it sends the next.
The clients have a share of the same cores. All that a request takes is in its time: reading,
decoding, resizing, waiting for a batch, the network, the answer.
"""

import http.client
import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from pipelines.benchmarking import exported
from pipelines.benchmarking.ceiling import ceiling_gflops
from pipelines.benchmarking.memory import peak_mib
from pipelines.benchmarking.results import Results
from pipelines.benchmarking.rounds import (
    ROUNDS,
    WARM_UP_S,
    Round,
    Subject,
    in_new_process,
    measured,
)
from pipelines.config import ServeBenchmarkConfig
from pipelines.errors import Failed
from pipelines.training.children import bound, end

# A usual photograph of ImageNet's, and about as many bytes.
PHOTOGRAPH_PX = (500, 375)
QUALITY = 90
START_S = 120
TIMEOUT_S = 60
POLL_S = 0.1


class Server(NamedTuple):
    """A server that listens.

    Args:
        address: `HOST:PORT`.
        pid: of its process.
    """

    address: str
    pid: int


class Answer(NamedTuple):
    """What a request came to.

    Args:
        status: HTTP's.
        took_s: from its first byte to the answer's last.
    """

    status: int
    took_s: float


def serve(configs: list[ServeBenchmarkConfig]) -> Results:
    """Measures a server of each network, exported for the time being, and adds their rows.

    Raises:
        BadInput: a file with other columns, or what writes or runs the engine is not installed.
        Failed: a network cannot be written, or the server does not start or answers with an error.
    """
    return measured(Subject("serve", exported.write, requests), configs)


def requests(config: ServeBenchmarkConfig, models: Path) -> Round:
    """A round: requests for a part of the time, to a server that has just been started."""
    ceiling = in_new_process(ceiling_gflops, config.precision)
    body = photograph()
    with server(config, models) as started:
        load(config, started, body, WARM_UP_S)
        began_s = time.perf_counter()
        answers = load(config, started, body, config.seconds / ROUNDS)
        took_s = time.perf_counter() - began_s
        memory_mib = peak_mib(started.pid)
    answered_s = [answer.took_s for answer in answers if answer.status == HTTPStatus.OK]
    return Round(
        images_per_s=len(answered_s) / took_s,
        calls_s=answered_s,
        memory_mib=memory_mib,
        ceiling_gflops=ceiling,
        refused=len(answers) - len(answered_s),
    )


@contextmanager
def server(config: ServeBenchmarkConfig, models: Path) -> Iterator[Server]:
    """`pipelines.serve` on a free port of this machine, until the body ends.

    Raises:
        Failed: it does not start; the message is the last line of its log.
    """
    log = models / "server.log"
    command = [sys.executable, "-m", "pipelines.serve", models, "--port=0"]
    with log.open("w") as errors:
        process = subprocess.Popen(
            bound([*command, f"--engine={config.engine}"]),
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
    try:
        yield Server(_address(process, log), process.pid)
    finally:
        end([process])


def _address(process: subprocess.Popen, log: Path) -> str:
    """Where a server listens, once it does."""
    deadline_s = time.monotonic() + START_S
    while time.monotonic() < deadline_s and process.poll() is None:
        for line in log.read_text().splitlines():
            if '"listening"' in line:
                return urlsplit(json.loads(line)["url"]).netloc
        time.sleep(POLL_S)
    raise Failed(f"the server did not start: {log.read_text().strip().rpartition(chr(10))[2]}")


def load(config: ServeBenchmarkConfig, server: Server, body: bytes, seconds: float) -> list[Answer]:
    """What all the clients' requests come to, sent for so long.

    Raises:
        Failed: an answer other than 200 and 429 (the server is full), or none.
    """
    end_s = time.perf_counter() + seconds

    def client(_: int) -> list[Answer]:
        connection = http.client.HTTPConnection(server.address, timeout=TIMEOUT_S)
        answers = []
        while not answers or time.perf_counter() < end_s:
            began_s = time.perf_counter()
            connection.request("POST", f"/classify/{config.network}", body)
            response = connection.getresponse()
            said = response.read()
            answers.append(Answer(response.status, time.perf_counter() - began_s))
            if response.status not in (HTTPStatus.OK, HTTPStatus.TOO_MANY_REQUESTS):
                raise Failed(f"the server answered {response.status}: {said[:200].decode()}")
        connection.close()
        return answers

    with ThreadPoolExecutor(config.clients) as threads:
        try:
            return [answer for one in threads.map(client, range(config.clients)) for answer in one]
        except (OSError, http.client.HTTPException) as error:
            raise Failed(
                f"the server stopped answering ({type(error).__name__}: {error})"
            ) from error


def photograph() -> bytes:
    """A JPEG with details of every size, as photographs have: noise, the finer the fainter."""
    draw = np.random.default_rng(0)
    width, height = PHOTOGRAPH_PX
    pixels = np.full((height, width, 3), 128.0)
    for octave in range(1, 8):
        noise = draw.integers(0, 256, (3 * 2**octave, 4 * 2**octave, 3), np.uint8)
        layer = Image.fromarray(noise).resize(PHOTOGRAPH_PX, Image.Resampling.BICUBIC)
        pixels += (np.asarray(layer) - 127.5) / 2 ** (octave / 2) / 2
    encoded = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(encoded, "JPEG", quality=QUALITY)
    return encoded.getvalue()
