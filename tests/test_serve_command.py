"""`python -m pipelines.serve` in a process of its own: what it logs, and how it ends."""

import json
import math
import signal
import socket
import subprocess
import sys
import threading
import time

import colour_model
import pytest
from served import ask, one_colour, until

from pipelines.config import ServeConfig
from pipelines.serving.server import listen, url_of

RED = one_colour((255, 0, 0))


class Process:
    """The command, on a free port."""

    def __init__(self, *arguments):
        command = [sys.executable, "-m", "pipelines.serve", *map(str, arguments), "--port", "0"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.log = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        until(lambda: self.listening() or self.process.poll() is not None, within_s=60)

    def _read(self):
        for line in self.process.stderr:
            self.log.append(json.loads(line))

    def listening(self):
        return any(line["event"] == "listening" for line in list(self.log))

    @property
    def url(self):
        (line,) = (line for line in self.log if line["event"] == "listening")
        return line["url"]

    def end(self, number):
        """Exit status and standard output after a signal."""
        self.process.send_signal(number)
        out = self.process.stdout.read()
        status = self.process.wait(timeout=60)
        self._reader.join()
        self.process.stdout.close()
        self.process.stderr.close()
        return status, out


@pytest.mark.parametrize("option", ["poll_s", "read_timeout_s", "deadline_s", "batch_delay_ms"])
def test_a_time_without_an_end_is_refused(option):
    with pytest.raises(ValueError, match=f"{option} is inf; .* finite"):
        ServeConfig(**{option: math.inf})


@pytest.mark.parametrize(("host", "written"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
def test_both_kinds_of_address_are_listened_on(host, written):
    with listen(host, 0) as listener:
        assert url_of(listener) == f"http://{written}:{listener.getsockname()[1]}"
        socket.create_connection((host, listener.getsockname()[1]), timeout=10).close()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    colour_model.write(folder / "slow" / "1", work=400)
    return folder


def test_sigterm_answers_what_is_under_way_and_ends_well(models):
    process = Process(models, "--max_batch", "1")
    answers = []
    clients = [
        threading.Thread(target=lambda: answers.append(ask(f"{process.url}/classify/slow", RED)))
        for _ in range(6)
    ]
    for client in clients:
        client.start()
    until(lambda: "serving_images_in_flight 6.0" in ask(f"{process.url}/metrics").body)
    status, out = process.end(signal.SIGTERM)
    for client in clients:
        client.join()
    assert status == 0
    assert out.startswith("stopped serving slow at http://127.0.0.1:")
    assert [answer.status for answer in answers] == [200] * 6
    requests = [line for line in process.log if line.get("path") == "/classify/slow"]
    assert len(requests) == 6
    for line in requests:
        assert (line["event"], line["level"], line["status"]) == ("request", "info", 200)
        assert (line["model"], line["version"], line["images"]) == ("slow", 1, 1)
        assert line["seconds"] >= line["network_s"] > 0
        assert abs(line["time"] - time.time()) < 300
