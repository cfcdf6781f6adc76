"""A load on an HTTP server, from a process of its own; prints what came back as JSON.

    python load.py URL FOLDER --clients 32 --seconds 20
    python load.py URL FOLDER --rate 60 --seconds 60

With `--clients`, each sends its next photograph when the last one is answered. With `--rate`, so
many are sent a second, whatever becomes of the others; a request's time begins when it was due.
Standard library only.
"""

import argparse
import http.client
import itertools
import json
import queue
import statistics
import threading
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

# Connections of an open load: more than a server that refuses in time ever needs.
CONNECTIONS = 256
TIMEOUT_S = 120
# A server may close a connection that lies idle; well before that, it is opened anew.
IDLE_S = 2


class Client(threading.Thread):
    """Sends what `work` gives it, one request after another on one connection."""

    def __init__(self, url: str, headers: dict[str, str], work, answers: list) -> None:
        super().__init__(daemon=True)
        self._url = urlsplit(url)
        self._headers = headers
        self._work = work
        self._answers = answers

    def run(self) -> None:
        connection = http.client.HTTPConnection(self._url.netloc, timeout=TIMEOUT_S)
        answered = time.monotonic()
        for due, body in self._work:
            begun = time.monotonic() if due is None else due
            if time.monotonic() > answered + IDLE_S:
                connection.close()
            try:
                connection.request("POST", self._url.path, body, self._headers)
                response = connection.getresponse()
                response.read()
                status = response.status
            except (OSError, http.client.HTTPException) as error:
                status = type(error).__name__
                connection.close()
            answered = time.monotonic()
            self._answers.append((status, answered - begun))
        connection.close()


def closed(arguments: argparse.Namespace, bodies) -> tuple[list, float]:
    """Clients that wait for their answers."""
    answers, begun = [], time.monotonic()

    def work():
        while time.monotonic() < begun + arguments.seconds:
            yield None, next(bodies)

    clients = [
        Client(arguments.url, arguments.header, work(), answers) for _ in range(arguments.clients)
    ]
    finish(clients)
    return answers, time.monotonic() - begun


def opened(arguments: argparse.Namespace, bodies) -> tuple[list, float]:
    """Requests at a rate."""
    answers, due = [], queue.SimpleQueue()
    clients = [
        Client(arguments.url, arguments.header, iter(due.get, None), answers)
        for _ in range(CONNECTIONS)
    ]
    for client in clients:
        client.start()
    begun = time.monotonic()
    for number in range(round(arguments.rate * arguments.seconds)):
        at = begun + number / arguments.rate
        time.sleep(max(at - time.monotonic(), 0))
        due.put((at, next(bodies)))
    for _ in clients:
        due.put(None)
    for client in clients:
        client.join()
    return answers, time.monotonic() - begun


def finish(clients: list[Client]) -> None:
    for client in clients:
        client.start()
    for client in clients:
        client.join()


def multipart(files: list[bytes]) -> tuple[list[bytes], dict[str, str]]:
    head = b'--cut\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
    bodies = [head + file + b"\r\n--cut--\r\n" for file in files]
    return bodies, {"Content-Type": "multipart/form-data; boundary=cut"}


def percentile(values: list[float], percent: int) -> float | None:
    if len(values) < 2:
        return values[0] if values else None
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("url")
    parser.add_argument("folder", type=Path, help="photographs, as *.JPEG in any depth")
    parser.add_argument("--clients", type=int)
    parser.add_argument("--rate", type=float, help="requests a second")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--form", action="store_true", help="upload as a form does")
    arguments = parser.parse_args()
    files = [path.read_bytes() for path in sorted(arguments.folder.rglob("*.JPEG"))]
    bodies, arguments.header = multipart(files) if arguments.form else (files, {})
    answers, took_s = (opened if arguments.rate else closed)(arguments, itertools.cycle(bodies))
    times = [seconds for status, seconds in answers if status == 200]
    print(
        json.dumps(
            {
                "requests": len(answers),
                "statuses": Counter(str(status) for status, _ in answers),
                "answered_per_s": len(times) / took_s,
                "p50_ms": 1e3 * (percentile(times, 50) or 0),
                "p99_ms": 1e3 * (percentile(times, 99) or 0),
                "took_s": took_s,
            }
        )
    )


if __name__ == "__main__":
    main()
