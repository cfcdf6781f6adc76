"""What the server makes of the network's speed, beside other servers of the same model.

    python benchmarks/serving.py MODELS/NAME FOLDER [--python litserve=PYTHON]

FOLDER has photographs as *.JPEG. Every server, and the network alone, is a process of its own; they
take turns, `--rounds` times, and whose turn it is not is stopped (SIGSTOP). The load comes from a
further process, `--clients` of them, on the same cores. Reported are medians, their spread, and
ratios round by round. `--measure overload` is what happens at four times the capacity instead, and
`--measure soak` how memory grows.
"""

import argparse
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import turns

PEERS = Path(__file__).parent / "serving_peers"
# Numerator, denominator, what is compared, and the goal.
RATIOS = (
    ("ours", "bare", "answered_per_s", "at least 0.85"),
    ("ours", "plain FastAPI", "answered_per_s", "at least 1.3"),
    ("ours", "plain FastAPI", "p99_ms", "at most 0.5"),
    ("ours", "LitServe", "answered_per_s", "at least 1.0"),
    ("ours", "LitServe", "p99_ms", ""),
)
OVERLOAD = 4


class Server:
    """A server in a process group of its own.

    Args:
        command: what starts it.
        url: where it takes a photograph.
        health: where it says that it is there.
        form: whether it takes a form.
    """

    def __init__(
        self, command: list, url: str, health: str, form: bool, log: Path, children: ExitStack
    ) -> None:
        self.url, self.form = url, form
        self.process = turns.launch(command, log, children)
        for _ in range(1200):
            try:
                urllib.request.urlopen(health, timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        else:
            raise RuntimeError(log.read_text()[-2000:])
        self.stop()

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.killpg(self.process.pid, signal.SIGCONT)

    def load(self, folder: Path, *options: object) -> dict[str, Any]:
        """One turn of it under a load."""
        self.go_on()
        command = [sys.executable, PEERS / "load.py", self.url, folder, *options]
        command += ["--form"] if self.form else []
        done = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
        self.stop()
        return json.loads(done.stdout)

    def resident_mib(self) -> float:
        return psutil.Process(self.process.pid).memory_info().rss / 2**20


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def ours(arguments: argparse.Namespace, scratch: Path, children: ExitStack, *options) -> Server:
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "pipelines.serve", arguments.model.parent, "--port", port]
    command += ["--engine", arguments.engine, "--max_batch", arguments.batch, *options]
    return Server(
        command,
        f"{base}/classify/{arguments.model.name}",
        f"{base}/healthz",
        False,
        scratch / "ours.log",
        children,
    )


def peer(name: str, command: list, form: bool, scratch: Path, children: ExitStack) -> Server:
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    path, health = ("predict", "health") if form else ("classify", "healthz")
    command = [port if part == "PORT" else part for part in command]
    log = scratch / f"{name}.log"
    return Server(command, f"{base}/{path}", f"{base}/{health}", form, log, children)


def compare(arguments: argparse.Namespace, scratch: Path, children: ExitStack) -> None:
    version = max(
        (path for path in arguments.model.iterdir() if path.name.isdecimal()),
        key=lambda path: int(path.name),
    )
    clients = ("--clients", arguments.clients, "--seconds", arguments.seconds)
    bare, _ = turns.start(
        [
            *(sys.executable, PEERS / "bare.py", version, "--batch", arguments.batch),
            *("--engine", arguments.engine, "--seconds", arguments.seconds / 2),
        ],
        scratch / "bare.log",
        children,
    )
    servers = {
        "ours": ours(arguments, scratch, children),
        "plain FastAPI": peer(
            "plain",
            [sys.executable, PEERS / "plain_fastapi.py", version, "PORT"],
            False,
            scratch,
            children,
        ),
    }
    if python := arguments.python.get("litserve"):
        command = [python, PEERS / "lit.py", version, "PORT", arguments.batch]
        servers["LitServe"] = peer("lit", command, True, scratch, children)
    for server in servers.values():
        server.load(arguments.folder, "--clients", arguments.clients, "--seconds", 5)
    rounds = []
    for number in range(arguments.rounds):
        found = {"bare": turns.turn(bare)}
        found |= {name: server.load(arguments.folder, *clients) for name, server in servers.items()}
        rounds.append(found)
        print(f"round {number + 1}: {json.dumps(found)}", file=sys.stderr, flush=True)
    for name in ("bare", *servers):
        rates = [found[name]["answered_per_s"] for found in rounds]
        line = f"{name:<16}{statistics.median(rates):>8.1f} images/s"
        if name in servers:
            p50, p99 = (
                statistics.median(found[name][key] for found in rounds)
                for key in ("p50_ms", "p99_ms")
            )
            statuses = {status for found in rounds for status in found[name]["statuses"]}
            line += f"  p50 {p50:>6.0f} ms  p99 {p99:>6.0f} ms  {', '.join(sorted(statuses))}"
        print(line)
    for numerator, denominator, key, goal in RATIOS:
        if denominator in rounds[0]:
            ratios = [found[numerator][key] / found[denominator][key] for found in rounds]
            print(
                f"{numerator} / {denominator}, {key}: {statistics.median(ratios):.2f} "
                f"({min(ratios):.2f} to {max(ratios):.2f}) {goal}"
            )


def overload(arguments: argparse.Namespace, scratch: Path, children: ExitStack) -> None:
    """Four times the capacity, against the time of one request at a time."""
    places = ("--max_in_flight", arguments.max_in_flight, "--max_instances", 1)
    server = ours(arguments, scratch, children, *places)
    server.load(arguments.folder, "--clients", 1, "--seconds", 5)
    alone = server.load(arguments.folder, "--clients", 1, "--seconds", 30)
    full = server.load(arguments.folder, "--clients", arguments.max_in_flight, "--seconds", 20)
    rate = OVERLOAD * full["answered_per_s"]
    over = server.load(arguments.folder, "--rate", rate, "--seconds", 60)
    print(f"one at a time: {json.dumps(alone)}")
    print(f"capacity, {arguments.max_in_flight} at a time: {json.dumps(full)}")
    print(f"at {rate:.1f} requests/s: {json.dumps(over)}")
    print(f"p99 of the admitted / p99 unloaded: {over['p99_ms'] / alone['p99_ms']:.2f} below 3")


def soak(arguments: argparse.Namespace, scratch: Path, children: ExitStack) -> None:
    """Resident memory while requests go by."""
    server = ours(arguments, scratch, children)
    answered, resident = 0, []
    while answered < arguments.requests:
        statuses = server.load(
            arguments.folder, "--clients", arguments.clients, "--seconds", 10
        )["statuses"]  # fmt: skip
        answered += statuses.get("200", 0)
        resident.append((answered, server.resident_mib()))
        print(f"{answered} requests: {resident[-1][1]:.1f} MiB {statuses}", flush=True)
    settled = next(mib for count, mib in resident if count >= arguments.requests / 10)
    growth = 100 * (max(mib for _, mib in resident) / settled - 1)
    print(f"growth after the first {arguments.requests // 10}: {growth:.1f}% below 5%")


MEASUREMENTS = {"compare": compare, "overload": overload, "soak": soak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path, help="the folder of an exported model")
    parser.add_argument("folder", type=Path, help="photographs, as *.JPEG in any depth")
    parser.add_argument("--measure", choices=MEASUREMENTS, default="compare")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=15, help="of each turn")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--engine", default="savedmodel", help="of ours, and of the network alone")
    parser.add_argument("--max-in-flight", type=int, default=2, help="of `overload`")
    parser.add_argument("--requests", type=int, default=20_000, help="of `soak`")
    parser.add_argument(
        "--python", type=lambda pair: pair.split("=", 1), action="append", default=[]
    )
    arguments = parser.parse_args()
    arguments.python = dict(arguments.python)
    turns.end_children_with_this_process()
    print(
        f"{os.cpu_count()} CPUs, {platform.machine()}, batch {arguments.batch}, "
        f"{arguments.clients} clients, engine {arguments.engine}; the load shares the cores"
    )
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as children:
        MEASUREMENTS[arguments.measure](arguments, Path(scratch), children)


if __name__ == "__main__":
    main()
