"""The server, seen from outside: no code of ours on the client's side."""

import base64
import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest
import tensorflow as tf

from pipelines.config import ServeConfig
from pipelines.data.streams import encoded_images, evaluation_stream, open_dataset
from pipelines.errors import BadInput
from pipelines.serving.server import serve
from pipelines.training.run import Run


@pytest.fixture(scope="module")
def held_out(digits):
    """Every held-out image of the digits, as the bytes that were prepared."""
    return list(encoded_images(open_dataset(digits), "validation").as_numpy_iterator())


@pytest.fixture(scope="module")
def expected(run, digits):
    """The trained model's own probabilities on the held-out images, `(N, 10)`."""
    model, config = Run.open(run).classifier(), Run.open(run).config()
    stream = evaluation_stream(open_dataset(digits), "validation", config.input, 64)
    return np.concatenate(
        [tf.nn.softmax(model(pixels)).numpy()[mask] for pixels, _, mask in stream]
    )


@pytest.fixture(scope="module")
def server(saved_models):
    """The serve command in a process of its own, on a free port; gives its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.serve", saved_models, "--port", "0"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    line = process.stderr.readline()
    drain = threading.Thread(target=process.stderr.read)
    drain.start()
    try:
        yield re.search(r"http://127\.0\.0\.1:\d+", line)[0]
    finally:
        process.send_signal(signal.SIGINT)
        status = process.wait(timeout=30)
        drain.join()
        process.stderr.close()
        process.stdout.close()
    assert status == 0


def ask(url, body=None):
    """Status and JSON of a GET, or of a POST when there is a body."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data), timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with contextlib.closing(error):
            return error.code, json.load(error)


def b64(encoded):
    return {"b64": base64.b64encode(encoded).decode()}


def test_the_server_answers_what_the_model_answers(server, held_out, expected):
    body = {"instances": [b64(encoded) for encoded in held_out]}
    status, answer = ask(f"{server}/v1/models/digits:predict", body)
    assert status == 200
    assert [row["class_ids"][0] for row in answer["predictions"]] == expected.argmax(1).tolist()
    assert answer["predictions"][0]["classes"] == [
        str(number) for number in answer["predictions"][0]["class_ids"]
    ]
    top1 = [row["probabilities"][0] for row in answer["predictions"]]
    np.testing.assert_allclose(top1, expected.max(axis=1), atol=1e-4)


def test_an_instance_may_name_its_input(server, held_out):
    plain = ask(f"{server}/v1/models/digits:predict", {"instances": [b64(held_out[0])]})
    named = {"instances": [{"image_bytes": b64(held_out[0])}]}
    assert ask(f"{server}/v1/models/digits:predict", named) == plain


def test_the_server_takes_tensors(server):
    images = np.zeros((2, 8, 8, 3), int).tolist()
    request = {"signature_name": "image_tensor", "instances": images}
    status, answer = ask(f"{server}/v1/models/digits:predict", request)
    assert (status, len(answer["predictions"])) == (200, 2)


def test_status_and_metadata_are_tensorflow_servings(server):
    status, answer = ask(f"{server}/v1/models/digits")
    ok = {"error_code": "OK", "error_message": ""}
    assert (status, answer) == (
        200,
        {"model_version_status": [{"version": "1", "state": "AVAILABLE", "status": ok}]},
    )
    status, answer = ask(f"{server}/v1/models/digits/metadata")
    assert answer["model_spec"] == {"name": "digits", "signature_name": "", "version": "1"}
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    assert {"serving_default", "image_tensor"} <= set(signatures)
    assert signatures["serving_default"]["inputs"]["image_bytes"]["dtype"] == "DT_STRING"


@pytest.mark.parametrize(
    ("path", "body", "status", "told"),
    [
        ("/v1/models/nothing", None, 404, "unknown model 'nothing'; this server has ['digits']"),
        ("/v1/models/nothing:predict", {"instances": [1]}, 404, "unknown model 'nothing'"),
        ("/v2/nowhere", None, 404, "Not Found"),
        ("/v1/models/digits:predict", b"{", 400, "not JSON that can be read"),
        ("/v1/models/digits:predict", {"instances": []}, 400, '{"instances": [{"b64"'),
        ("/v1/models/digits:predict", {"instances": [7]}, 400, "instance 0 is not"),
        ("/v1/models/digits:predict", b"[" * 100_000, 400, "not JSON that can be read"),
        ("/v1/models/digits:predict", {"instances": [{"b64": "?"}]}, 400, "not valid base64"),
        ("/v1/models/digits:predict", {"instances": [{"b64": "é"}]}, 400, "not valid base64"),
        (
            "/v1/models/digits:predict",
            {"instances": [[[[10**400]]]], "signature_name": "image_tensor"},
            400,
            "not equally nested lists of numbers",
        ),
        (
            "/v1/models/digits:predict",
            {"instances": [1], "signature_name": "no"},
            400,
            "unknown signature 'no'",
        ),
        (
            "/v1/models/digits:predict",
            {"instances": [[[1]]], "signature_name": "image_tensor"},
            400,
            "shape (1, 1, 1)",
        ),
        (
            "/v1/models/digits:predict",
            {"instances": [[1], [1, 2]], "signature_name": "image_tensor"},
            400,
            "not equally nested",
        ),
    ],
)
def test_a_bad_request_is_told_what_is_wrong(server, path, body, status, told):
    code, answer = ask(server + path, body)
    assert code == status
    assert told in answer["error"]
    assert "\n" not in answer["error"]


def test_a_body_that_is_no_image_is_named_among_good_ones(server, held_out):
    body = {"instances": [b64(held_out[0]), b64(b"not an image"), b64(held_out[1])]}
    code, answer = ask(f"{server}/v1/models/digits:predict", body)
    assert code == 400
    assert answer["error"].startswith("instance 1 is not an image")
    good = {"instances": [b64(held_out[0])]}
    assert ask(f"{server}/v1/models/digits:predict", good)[0] == 200


def test_a_port_in_use_is_told(saved_models):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BadInput, match=f"127.0.0.1:{port} is in use; give another --port"):
            serve(ServeConfig(saved_models, port=port))


def test_the_folder_of_one_model_is_told_apart(saved_models):
    with pytest.raises(BadInput, match="is one model; give the folder above: "):
        serve(ServeConfig(saved_models / "digits", port=0))


def test_a_folder_without_models_is_told(tmp_path):
    with pytest.raises(BadInput, match="no exported model in"):
        serve(ServeConfig(tmp_path, port=0))
