"""What the server does not let happen to it: each limit, and that it is well afterwards."""

import asyncio
import http.client
import io
import json
import socket
import struct
import threading
from urllib.parse import urlsplit

import colour_model
import pytest
from photographs import encode
from PIL import Image
from served import ask, b64, one_colour, serving, until
from starlette.exceptions import HTTPException
from starlette.requests import Request

from pipelines.config import ServeConfig
from pipelines.serving.admission import Admission
from pipelines.serving.batching import Batcher
from pipelines.serving.observing import Metrics
from pipelines.serving.repository import Repository

RED = one_colour((255, 0, 0))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model that answers at once, and one that takes its time."""
    folder = tmp_path_factory.mktemp("models")
    colour_model.write(folder / "colour" / "1")
    colour_model.write(folder / "slow" / "1", work=150)
    return folder


@pytest.fixture(scope="module")
def narrow(models):
    """Few places, short times."""
    with serving(
        models, max_in_flight=3, max_instances=2, max_batch=1, max_body_mib=1, max_image_mpx=1,
        read_timeout_s=1.0, deadline_s=20.0,
    ) as url:  # fmt: skip
        yield url


def assert_well(server):
    """It is alive, correct, and nothing is left in flight."""
    until(lambda: "serving_images_in_flight 0.0" in ask(f"{server}/metrics").body)
    assert ask(f"{server}/classify/colour", RED).body["predictions"][0]["class"] == "red"


def at_once(number, work):
    """Calls a function in as many threads, and gives what it gave."""
    given = []
    threads = [threading.Thread(target=lambda: given.append(work())) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return given


def test_more_than_the_places_are_refused_at_once_and_told_when_to_return(narrow):
    answers = at_once(12, lambda: ask(f"{narrow}/classify/slow", RED))
    assert {answer.status for answer in answers} == {200, 429}
    refused = [answer for answer in answers if answer.status == 429]
    assert all(answer.headers["Retry-After"] == "1" for answer in refused)
    assert all("of at most 3" in answer.body["error"] for answer in refused)
    answered = [answer for answer in answers if answer.status == 200]
    assert all(answer.body["predictions"][0]["class"] == "red" for answer in answered)
    assert_well(narrow)


def test_every_image_of_a_request_takes_a_place(narrow):
    pair = {"instances": [b64(RED)] * 2}
    answers = at_once(3, lambda: ask(f"{narrow}/v1/models/slow:predict", pair))
    assert {answer.status for answer in answers} == {200, 429}
    assert_well(narrow)


def test_a_request_has_a_deadline(models):
    with serving(models, deadline_s=0.02) as url:
        answer = ask(f"{url}/classify/slow", RED)
        assert answer.status == 504
        assert "not answered within 0.02 s" in answer.body["error"]
        until(lambda: "serving_images_in_flight 0.0" in ask(f"{url}/metrics").body)


def test_an_image_with_too_many_pixels_is_refused_before_it_is_decoded(narrow):
    answer = ask(f"{narrow}/classify/colour", one_colour((255, 0, 0), (1001, 1000)))
    assert answer.status == 400
    assert answer.body == {"error": "the file has 1001 x 1000 px; at most 1 megapixels"}
    assert ask(f"{narrow}/classify/colour", one_colour((255, 0, 0), (1000, 1000))).status == 200


def test_the_frames_of_an_animation_are_pixels_too(narrow):
    frames = [Image.new("L", (100, 100), shade) for shade in range(101)]
    options = {"save_all": True, "append_images": frames[1:]}
    answer = ask(f"{narrow}/classify/colour", encode(frames[0], "GIF", options))
    assert answer.status == 400
    assert "has 101 frames of 100 x 100 px; at most 1 megapixels" in answer.body["error"]
    options["append_images"] = frames[1:100]
    assert ask(f"{narrow}/classify/colour", encode(frames[0], "GIF", options)).status == 200


def gif(*sizes: tuple[int, int], screen=(1, 1)) -> bytes:
    """A GIF of one-coloured frames, put together by hand: it may lie about its screen."""
    frames = b"".join(
        b"!\xf9\x04\0\0\0\0\0,"
        + struct.pack("<HHHHB", 0, 0, *size, 0)
        # Nothing but codes that begin again, and pixels of the first colour.
        + b"\x02"
        + b"".join(bytes([len(part)]) + part for part in lzw(size[0] * size[1]))
        + b"\0"
        for size in sizes
    )
    return b"GIF89a" + struct.pack("<HHBBB", *screen, 0x80, 0, 0) + b"\xff\0\0" * 2 + frames + b";"


def lzw(pixels: int) -> list[bytes]:
    """Codes of three bits, least significant first: clear, pixel, pixel, clear, ..., end."""
    codes = [4, 0, 0] * (pixels // 2) + [4, 0] * (pixels % 2) + [5]
    number = int("".join(f"{code:03b}" for code in reversed(codes)), 2)
    packed = number.to_bytes(3 * len(codes) // 8 + 1, "little")
    return [packed[at : at + 255] for at in range(0, len(packed), 255)]


def test_a_frame_that_is_larger_than_the_first_counts_for_all(narrow):
    """Pillow reports a picture of 1 x 1 px; TensorFlow makes room for 2 of 1000 x 501."""
    hidden = gif((1, 1), (1000, 501))
    assert Image.open(io.BytesIO(hidden)).size == (1, 1)
    answer = ask(f"{narrow}/classify/colour", hidden)
    assert answer.status == 400
    assert "has 2 frames of 1000 x 501 px; at most 1 megapixels" in answer.body["error"]
    assert ask(f"{narrow}/classify/colour", gif((20, 20), (40, 30))).status == 200


def say(url, *lines: bytes) -> bytes:
    """What comes back to some bytes on a connection of their own, until it is closed."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(b"".join(lines))
        heard = b""
        while part := connection.recv(4096):
            heard += part
    return heard


HEAD = b"POST /classify/colour HTTP/1.1\r\nHost: here\r\n"


def test_a_body_that_is_too_large_is_refused_and_its_client_hears_so(narrow):
    heard = say(narrow, HEAD, b"Content-Length: 1048577\r\n\r\n", bytes(2**20 + 1))
    assert heard.startswith(b"HTTP/1.1 413 ")
    assert heard.endswith(b'{"error":"the body is larger than 1 MiB"}')
    assert_well(narrow)


def test_a_declared_gigabyte_is_refused_unread(narrow):
    heard = say(narrow, HEAD, b"Content-Length: 1073741824\r\n\r\n", bytes(100))
    assert heard.startswith(b"HTTP/1.1 413 ")
    assert_well(narrow)


def test_a_chunked_body_without_an_end_is_refused_where_it_is_too_large(narrow):
    chunk = b"10000\r\n" + bytes(2**16) + b"\r\n"
    heard = say(narrow, HEAD, b"Transfer-Encoding: chunked\r\n\r\n", chunk * 17)
    assert heard.startswith(b"HTTP/1.1 413 ")
    assert_well(narrow)


def test_a_body_that_does_not_come_is_given_up(narrow):
    heard = say(narrow, HEAD, b"Content-Length: 100\r\n\r\nonly this")
    assert heard.startswith(b"HTTP/1.1 408 ")
    assert b"the body did not come within 1 s" in heard
    assert_well(narrow)


def test_bodies_that_do_not_come_keep_nobody_out(narrow):
    address = urlsplit(narrow)
    places = [socket.create_connection((address.hostname, address.port)) for _ in range(4)]
    for connection in places:
        connection.sendall(HEAD + b"Content-Length: 100\r\n\r\nX")
    assert ask(f"{narrow}/classify/colour", RED).status == 200
    for connection in places:
        connection.close()
    assert_well(narrow)


def test_the_bodies_that_have_come_have_a_limit_together():
    admission = Admission(ServeConfig(max_body_mib=1, max_bodies_mib=2), Metrics())

    async def refused(size, gone):
        """The status of a client that sends so many bytes, and then goes away."""
        parts = iter([{"type": "http.request", "body": bytes(size), "more_body": True}])

        async def receive():
            if part := next(parts, None):
                return part
            await gone.wait()
            return {"type": "http.disconnect"}

        request = Request({"type": "http", "headers": [], "state": {"parts": {}}}, receive)
        with pytest.raises(HTTPException) as refusal:
            async with admission.admitted(request) as call:
                await call.body()
        return refusal.value.status_code

    async def scenario():
        later, now = asyncio.Event(), asyncio.Event()
        now.set()
        held = [asyncio.create_task(refused(2**20 - 1, later)) for _ in range(2)]
        await asyncio.sleep(0.01)
        assert await refused(3, now) == 429
        assert await refused(2, now) == 400
        later.set()
        assert await asyncio.gather(*held) == [400, 400]
        assert await refused(2**20, now) == 400

    asyncio.run(scenario())


@pytest.mark.parametrize("expects", [b"", b"Expect: 100-continue\r\n"])
def test_an_answer_before_the_body_closes_the_connection(narrow, expects):
    """What comes next may be the body or a request; the server does not guess."""
    head = b"POST /classify/unknown HTTP/1.1\r\nHost: here\r\nContent-Length: 100\r\n" + expects
    heard = say(narrow, head, b"\r\n", b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n")
    assert heard.startswith(b"HTTP/1.1 404 ")
    assert b"connection: close\r\n" in heard.lower()
    assert heard.count(b"HTTP/1.1") == 1


def test_a_connection_is_kept_where_the_body_was_read(narrow):
    address = urlsplit(narrow)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=10)
    for method, path, body in (
        ("POST", "/classify/colour", RED),
        ("POST", "/classify/colour", b"no image"),
        ("HEAD", "/", None),
        ("HEAD", "/healthz", None),
    ):
        connection.request(method, path, body)
        response = connection.getresponse()
        assert response.status == (400 if body == b"no image" else 200)
        assert response.getheader("Connection") is None
        assert bool(response.read()) == (method == "POST")
    connection.close()


def test_a_request_one_of_whose_images_fails_leaves_none_in_the_queue(models, monkeypatch):
    seen = []

    async def network(self, pixels):
        seen.append("begun")
        if len(seen) == 1:
            raise ValueError("this one")
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            seen.append("given up")
            raise

    monkeypatch.setattr(Batcher, "__call__", network)
    with serving(models) as url:
        assert ask(f"{url}/v1/models/colour:predict", {"instances": [b64(RED)] * 3}).status == 500
        until(lambda: seen.count("given up") == 2)


def test_a_fault_is_logged_once(models, monkeypatch, caplog):
    def fault(self):
        raise RuntimeError("what nobody thought of")

    with serving(models) as url:
        monkeypatch.setattr(Repository, "names", fault)
        assert ask(f"{url}/classify").body == {"error": "internal error: RuntimeError"}
        until(lambda: any(record.exc_info for record in caplog.records))
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == [
        "what nobody thought of"
    ]


@pytest.mark.parametrize("begun", [b"", b"POST /classify/col"])
def test_a_head_that_does_not_come_closes_the_connection(narrow, begun):
    assert say(narrow, begun) == b""


def test_what_is_no_http_is_refused(narrow):
    heard = say(narrow, b"\x16\x03\x01 what is this\r\n\r\n")
    assert heard.startswith(b"HTTP/1.1 400 ")
    assert_well(narrow)


def test_a_client_that_goes_away_leaves_nothing_behind(narrow):
    address = urlsplit(narrow)
    for _ in range(5):
        with socket.create_connection((address.hostname, address.port)) as connection:
            connection.sendall(HEAD + b"Content-Length: 100\r\n\r\nonly this")
    assert_well(narrow)


def test_ten_thousand_instances_are_refused(models):
    body = json.dumps({"instances": [b64(RED)] * 10_000}).encode()
    with serving(models) as url:
        answer = ask(f"{url}/v1/models/colour:predict", body)
        assert answer.status == 400
        assert answer.body["error"] == "10000 images in one request; from 1 to 32"
