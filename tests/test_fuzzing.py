"""Requests that nobody wrote: from the OpenAPI schema, and by damaging good ones. None is a 5xx."""

import base64
import http.client
import json
import subprocess
import sys
from urllib.parse import urlsplit

import colour_model
import numpy as np
import pytest
from photographs import encode, picture
from served import ask, one_colour, serving

RED = one_colour((255, 0, 0))
CONFIG = """
seed = 1
[parameters]
"path.name" = "colour"
"path.version" = "1"
"path.label" = "stable"
"""
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)
REQUESTS = 2_000
FORMS = {"JPEG": {"quality": 80}, "PNG": {}, "GIF": {}, "BMP": {}, "WEBP": {}}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    colour_model.write(folder / "colour" / "1")
    (folder / "colour" / "version_labels.yaml").write_text("stable: 1\n")
    with serving(folder) as url:
        yield url


@pytest.mark.slow
@pytest.mark.parametrize("known", [CONFIG, "seed = 1"])
def test_what_the_schema_allows_is_answered_as_the_schema_says(server, tmp_path, known):
    (tmp_path / "schemathesis.toml").write_text(known)
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server}/openapi.json"]
    options = ["--checks", ",".join(CHECKS), "--max-examples", "200"]
    done = subprocess.run(command + options, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    paths = ask(f"{server}/openapi.json").body["paths"]
    assert f"Tested: {sum(map(len, paths.values()))}\n" in done.stdout
    assert ask(f"{server}/classify/colour", RED).body["predictions"][0]["class"] == "red"


def damaged(good: bytes, random: np.random.Generator) -> bytes:
    """Some bytes changed, a part left out, repeated, or cut off."""
    data = bytearray(good)
    for _ in range(random.integers(1, 6)):
        at, end = sorted(random.integers(0, len(data) + 1, 2))
        match random.integers(5):
            case 0:
                data[at : at + 1] = random.bytes(1)
            case 1:
                data[at : at + 4] = [b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff"][random.integers(3)]
            case 2:
                data[at : min(end, at + 16)] = b""
            case 3:
                data[at:at] = data[at : min(end, at + 64)]
            case 4 if random.random() < 0.2:
                del data[at:]
    return bytes(data)


@pytest.mark.slow
def test_damaged_requests_are_answered_or_refused(server):
    random = np.random.default_rng(1)
    images = [
        encode(picture(seed, (24, 18), mode), form, options)
        for form, options in FORMS.items()
        for seed, mode in enumerate(("RGB", "L"))
    ]
    good = {"instances": [{"b64": "@"}, {"image_bytes": {"b64": "@"}}]}
    pixels = {"signature_name": "image_tensor", "inputs": np.full((2, 3, 3, 3), 7).tolist()}
    address = urlsplit(server)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    counted = dict.fromkeys((200, 400), 0)
    for number in range(REQUESTS):
        image = images[number % len(images)]
        match number % 4:
            case 0 | 1:
                text = base64.b64encode(damaged(image, random)).decode()
                body = json.dumps(good).replace("@", text).encode()
            case 2:
                body = damaged(json.dumps(pixels).encode(), random)
            case _:
                text = json.dumps(good).replace("@", base64.b64encode(image).decode())
                body = damaged(text.encode(), random)
        connection.request("POST", "/v1/models/colour:predict", body)
        response = connection.getresponse()
        answer = response.read()
        assert response.status in counted, (number, response.status, answer, body)
        counted[response.status] += 1
    connection.close()
    assert min(counted.values()) > REQUESTS / 20
    assert ask(f"{server}/classify/colour", RED).body["predictions"][0]["class"] == "red"
