"""What clients say to the server, and what it answers: with a model whose answer is a formula."""

import base64
import io
import json
import struct
import threading
import tracemalloc

import colour_model
import numpy as np
import pytest
from photographs import encode
from PIL import Image
from served import ask, b64, one_colour, serving

PICTURES = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 150, 0)]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    colour_model.write(folder / "colour" / "3")
    (folder / "colour" / "version_labels.yaml").write_text("stable: 3\n")
    return folder


@pytest.fixture(scope="module")
def server(models):
    with serving(models) as url:
        yield url


def expected(rgb):
    """Class ids, classes and probabilities of the two most probable colours."""
    probabilities = colour_model.probabilities(rgb)
    ids = np.argsort(-probabilities, kind="stable")[:2]
    return ids.tolist(), [colour_model.COLOURS[i] for i in ids], probabilities[ids]


def assert_rows(class_ids, classes, probabilities):
    for row, rgb in enumerate(PICTURES):
        ids, names, values = expected(rgb)
        assert class_ids[row] == ids
        assert classes[row] == names
        np.testing.assert_allclose(probabilities[row], values, atol=1e-6)


@pytest.mark.parametrize("at", ["", "/versions/3", "/labels/stable"])
def test_predict_answers_rows_with_rows(server, at):
    body = {"instances": [b64(one_colour(rgb)) for rgb in PICTURES]}
    answer = ask(f"{server}/v1/models/colour{at}:predict", body)
    assert answer.status == 200
    rows = answer.body["predictions"]
    assert_rows(*([row[key] for row in rows] for key in ("class_ids", "classes", "probabilities")))


@pytest.mark.parametrize("named", [False, True])
def test_predict_answers_columns_with_columns(server, named):
    column = [b64(one_colour(rgb)) for rgb in PICTURES]
    body = {"inputs": {"image_bytes": column} if named else column}
    outputs = ask(f"{server}/v1/models/colour:predict", body).body["outputs"]
    assert_rows(outputs["class_ids"], outputs["classes"], outputs["probabilities"])


def test_an_instance_may_name_its_input(server):
    picture = b64(one_colour(PICTURES[0]))
    url = f"{server}/v1/models/colour:predict"
    plain = ask(url, {"instances": [picture]}).body
    assert ask(url, {"instances": [{"image_bytes": picture}]}).body == plain


def test_a_signature_with_one_output_is_answered_without_its_name(server):
    column = [b64(one_colour(rgb)) for rgb in PICTURES]
    url = f"{server}/v1/models/colour:predict"
    means = np.array(PICTURES) / 255
    rows = ask(url, {"signature_name": "features", "instances": column}).body["predictions"]
    np.testing.assert_allclose(rows, means, atol=1e-6)
    columns = ask(url, {"signature_name": "features", "inputs": column}).body["outputs"]
    np.testing.assert_allclose(columns, means, atol=1e-6)


def test_predict_takes_pixels(server):
    pixels = np.broadcast_to(np.uint8(PICTURES)[:, None, None], (4, 9, 12, 3)).tolist()
    body = {"signature_name": "image_tensor", "instances": pixels}
    rows = ask(f"{server}/v1/models/colour:predict", body).body["predictions"]
    assert_rows(*([row[key] for row in rows] for key in ("class_ids", "classes", "probabilities")))


@pytest.mark.parametrize("at", ["", "/versions/3", "/labels/stable"])
def test_status_and_metadata_are_tensorflow_servings(server, at):
    ok = {"error_code": "OK", "error_message": ""}
    row = {"version": "3", "state": "AVAILABLE", "status": ok}
    url = f"{server}/v1/models/colour{at}"
    assert ask(url).body == {"model_version_status": [row]}
    metadata = ask(f"{url}/metadata").body
    assert metadata["model_spec"] == {"name": "colour", "signature_name": "", "version": "3"}
    signatures = metadata["metadata"]["signature_def"]["signature_def"]
    assert {"serving_default", "image_tensor", "features"} <= set(signatures)
    assert signatures["serving_default"]["inputs"]["image_bytes"]["dtype"] == "DT_STRING"
    assert signatures["image_tensor"]["inputs"]["images"]["dtype"] == "DT_UINT8"


def infer(server, request, binary=None, at=""):
    url = f"{server}/v2/models/colour{at}/infer"
    if binary is None:
        return ask(url, request)
    head = json.dumps(request).encode()
    return ask(url, head + binary, {"Inference-Header-Content-Length": str(len(head))})


def tensor(data=None, name="image_bytes", datatype="BYTES", shape=(4,), **parameters):
    values = {} if data is None else {"data": data}
    return {"name": name, "datatype": datatype, "shape": list(shape), **values} | (
        {"parameters": parameters} if parameters else {}
    )


def outputs_of(answer):
    assert answer.status == 200, answer.body
    return {
        output["name"]: np.array(output["data"]).reshape(output["shape"]).tolist()
        for output in answer.body["outputs"]
    }


@pytest.mark.parametrize("at", ["", "/versions/3"])
def test_infer_takes_base64_in_json(server, at):
    texts = [b64(one_colour(rgb))["b64"] for rgb in PICTURES]
    answer = infer(server, {"id": "7", "inputs": [tensor(texts)]}, at=at)
    assert_rows(**outputs_of(answer))
    assert {key: answer.body[key] for key in ("model_name", "model_version", "id")} == {
        "model_name": "colour",
        "model_version": "3",
        "id": "7",
    }
    assert {output["name"]: output["datatype"] for output in answer.body["outputs"]} == {
        "class_ids": "INT32",
        "classes": "BYTES",
        "probabilities": "FP32",
    }


def test_infer_takes_files_as_binary_data(server):
    files = [one_colour(rgb) for rgb in PICTURES]
    binary = b"".join(struct.pack("<I", len(file)) + file for file in files)
    answer = infer(server, {"inputs": [tensor(binary_data_size=len(binary))]}, binary)
    assert_rows(**outputs_of(answer))


PIXELS = np.broadcast_to(np.uint8(PICTURES)[:, None, None], (4, 9, 12, 3))
AS_PIXELS = {"signature_name": "image_tensor"}


@pytest.mark.parametrize("data", [PIXELS.ravel().tolist(), PIXELS.tolist()])
def test_infer_takes_pixels_in_json(server, data):
    request = {"parameters": AS_PIXELS, "inputs": [tensor(data, "images", "UINT8", PIXELS.shape)]}
    assert_rows(**outputs_of(infer(server, request)))


def test_infer_takes_pixels_as_binary_data(server):
    binary = PIXELS.tobytes()
    described = tensor(None, "images", "UINT8", PIXELS.shape, binary_data_size=len(binary))
    answer = infer(server, {"parameters": AS_PIXELS, "inputs": [described]}, binary)
    assert_rows(**outputs_of(answer))


def test_infer_gives_the_outputs_that_are_asked_for(server):
    texts = [b64(one_colour(rgb))["b64"] for rgb in PICTURES]
    request = {"inputs": [tensor(texts)], "outputs": [{"name": "class_ids"}]}
    assert list(outputs_of(infer(server, request))) == ["class_ids"]


def test_the_server_and_its_models_describe_themselves(server):
    assert ask(f"{server}/v2").body["extensions"] == []
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/colour/ready", "/healthz"):
        assert ask(server + path).status == 200
    assert ask(f"{server}/v2/models/colour").body == {
        "name": "colour",
        "versions": ["3"],
        "platform": "tensorflow_savedmodel",
        "inputs": [{"name": "image_bytes", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [
            {"name": "class_ids", "datatype": "INT32", "shape": [-1, 2]},
            {"name": "classes", "datatype": "BYTES", "shape": [-1, 2]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]},
        ],
    }
    assert ask(f"{server}/classify").body == {"models": [{"name": "colour", "versions": [3]}]}


def form(*parts, media="multipart/form-data"):
    """A multipart body, and the header that goes with it."""
    lines = []
    for head, content in parts:
        lines += [b"--cut", f"Content-Disposition: form-data; {head}".encode(), b"", content]
    body = b"\r\n".join([*lines, b"--cut--", b""])
    return body, {"Content-Type": f"{media}; boundary=cut"}


@pytest.mark.parametrize("media", [None, "multipart/form-data", "Multipart/Form-Data"])
def test_classify_takes_a_file(server, media):
    file = one_colour(PICTURES[3], form="JPEG")
    body, headers = form(
        ('name="note"', b"mine"), ('name="image"; filename="a.jpg"', file), media=media
    )
    answer = ask(f"{server}/classify/colour", *((body, headers) if media else (file, None)))
    assert answer.status == 200
    assert (answer.body["model"], answer.body["version"]) == ("colour", 3)
    ids, names, _ = expected(PICTURES[3])
    assert [row["class_id"] for row in answer.body["predictions"]] == ids
    assert [row["class"] for row in answer.body["predictions"]] == names


def test_an_answer_says_where_its_time_went(server):
    timing = ask(f"{server}/classify/colour", one_colour(PICTURES[0])).headers["server-timing"]
    assert [part.partition(";dur=")[0] for part in timing.split(", ")] == [
        "read",
        "decode",
        "queue",
        "network",
    ]


def test_every_kind_of_image_is_seen_as_it_is(server):
    """Grey, transparent, rotated by EXIF and tiny: none is turned, and alpha is dropped."""
    left_green = Image.new("RGB", (40, 40), (0, 255, 0))
    left_green.paste((255, 0, 0), (20, 0, 40, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {
        "red": encode(Image.new("RGBA", (9, 9), (255, 0, 0, 0)), "PNG", {}),
        "green": encode(Image.new("RGB", (1, 1), (0, 255, 0)), "BMP", {}),
        "blue": encode(Image.new("RGB", (500, 20), (0, 0, 255)), "WEBP", {"lossless": True}),
    }
    for name, file in files.items():
        assert ask(f"{server}/classify/colour", file).body["predictions"][0]["class"] == name
    grey = encode(Image.new("L", (30, 20), 128), "JPEG", {})
    features = {"signature_name": "features", "instances": [b64(grey)]}
    (row,) = ask(f"{server}/v1/models/colour:predict", features).body["predictions"]
    np.testing.assert_allclose(row, 128 / 255, atol=1e-6)
    rotated = encode(left_green, "JPEG", {"exif": exif})
    features = {
        "signature_name": "features",
        "instances": [b64(rotated), b64(encode(left_green, "JPEG", {}))],
    }
    turned, plain = ask(f"{server}/v1/models/colour:predict", features).body["predictions"]
    assert turned == plain


BAD_IMAGE = b64(b"not an image")
GOOD_IMAGE = b64(one_colour(PICTURES[0]))
PREDICT, INFER = "/v1/models/colour:predict", "/v2/models/colour/infer"


@pytest.mark.parametrize(
    ("path", "body", "status", "told"),
    [
        ("/v1/models/nothing", None, 404, "unknown model 'nothing'; this server has ['colour']"),
        ("/v1/models/nothing:predict", {"instances": [1]}, 404, "unknown model 'nothing'"),
        ("/v1/models/colour/versions/9", None, 404, "has no version '9' here; served: [3]"),
        ("/v1/models/colour/versions/%D9%A3", None, 404, "has no version"),
        ("/v1/models/colour/labels/new", None, 404, "version_labels.yaml names ['stable']"),
        ("/v1/models/..%2f..%2fetc/versions/3", None, 404, "Not Found"),
        ("/v1/models/../../etc/passwd", None, 404, "Not Found"),
        ("/v2/models/colour/versions/..%2f3", None, 404, "Not Found"),
        ("/v2/nowhere", None, 404, "Not Found"),
        ("/classify/nothing", b"x", 404, "unknown model 'nothing'"),
        (PREDICT, b"{", 400, "not JSON that can be read"),
        (PREDICT, b"\xff\xfe", 400, "not JSON that can be read"),
        (PREDICT, b"[" * 100_000, 400, "not JSON that can be read"),
        (PREDICT, b'{"instances":' + b"[" * 900 + b"]" * 900 + b"}", 400, "instance 0 is not"),
        (PREDICT, [], 400, "the body is not an object"),
        (PREDICT, {}, 400, "neither instances nor inputs"),
        (PREDICT, {"instances": [], "inputs": []}, 400, "instances and inputs; one of them"),
        (PREDICT, {"instances": []}, 400, '{"instances": [{"b64"'),
        (PREDICT, {"instances": [7]}, 400, "instance 0 is not"),
        (PREDICT, {"instances": [GOOD_IMAGE, {"b64": "?"}]}, 400, "instance 1 is not valid base64"),
        (PREDICT, {"instances": [{"b64": "é"}]}, 400, "not valid base64"),
        (PREDICT, {"instances": [GOOD_IMAGE, BAD_IMAGE]}, 400, "instance 1 is not an image (JPEG"),
        (PREDICT, {"instances": [GOOD_IMAGE] * 33}, 400, "33 images in one request; from 1 to 32"),
        (PREDICT, {"instances": [1] * 10_000}, 400, "10000 images in one request"),
        (PREDICT, {"instances": [1] * 33} | AS_PIXELS, 400, "33 images in one request"),
        (PREDICT, {"inputs": GOOD_IMAGE}, 400, "inputs is neither a list"),
        (PREDICT, {"instances": [1], "signature_name": "no"}, 400, "unknown signature 'no'"),
        (PREDICT, {"instances": [1], "signature_name": [1]}, 400, "signature_name is not a string"),
        (INFER, {"inputs": 1}, 400, "the body is not"),
        (INFER, {"inputs": []}, 400, "inputs has 0 elements"),
        (INFER, {"inputs": [tensor(["?"], shape=[1])]}, 400, "element 0 of data is not valid"),
        (INFER, {"inputs": [tensor(["YQ=="], shape=[1])]}, 400, "instance 0 is not an image"),
        (INFER, {"inputs": [tensor(["YQ=="])]}, 400, "has 1 elements; its shape [4]"),
        (INFER, {"inputs": [tensor(["YQ=="], shape=[-1])]}, 400, "shape is not a list"),
        (INFER, {"inputs": [tensor([], shape=[33])]}, 400, "33 images in one request"),
        (INFER, {"inputs": [tensor(["YQ=="], shape=[1, 1])]}, 400, "image_bytes takes (None,)"),
        (INFER, {"inputs": [tensor([1.0], datatype="FP32")]}, 400, "datatype is 'FP32'; 'BYTES'"),
        (INFER, {"inputs": [tensor([1], name="x")]}, 400, "name is 'x'; 'image_bytes'"),
        (INFER, {"inputs": [tensor(binary_data_size=9)]}, 400, "is 9; 0 bytes follow"),
        (INFER, {"inputs": [tensor()], "parameters": 1}, 400, "parameters is not an object"),
        (
            INFER,
            {"inputs": [tensor([GOOD_IMAGE["b64"]], shape=[1])], "outputs": [{"name": "y"}]},
            400,
            "unknown output 'y'; there are",
        ),
        ("/classify/colour", b"", 400, "is not an image"),
        ("/classify/colour", b"not an image", 400, "is not an image (JPEG, PNG, GIF, BMP, WEBP)"),
    ],
)
def test_a_bad_request_is_told_what_is_wrong(server, path, body, status, told):
    answer = ask(server + path, body)
    assert answer.status == status
    assert told in answer.body["error"]
    assert "\n" not in answer.body["error"]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([[[1]]], "shape (1, 1, 1)"),
        ([[1], [1, 2]], "not equally nested"),
        ([[[[10**400]]]], "whole numbers from 0 to 255"),
        ([[[[1, 2, 256]]]], "whole numbers from 0 to 255"),
        ([[[[1, 2, -1]]]], "whole numbers from 0 to 255"),
        ([[[[0.5, 1.0, 1.0]]]], "whole numbers from 0 to 255"),
        ([[[[True, True, False]]]], "whole numbers from 0 to 255"),
        ([[[["1", "2", "3"]]]], "whole numbers from 0 to 255"),
        ([[]], "whole numbers from 0 to 255"),
        ([[[[1, 2, 3, 4]]]], "shape (1, 1, 1, 4)"),
    ],
)
def test_pixels_that_are_none_are_refused(server, values, told):
    body = {"signature_name": "image_tensor", "instances": values}
    answer = ask(f"{server}{PREDICT}", body)
    assert answer.status == 400
    assert told in answer.body["error"]


def test_no_number_is_too_long_or_too_large_to_be_refused(server):
    digits = "9" * 5000
    for path in (
        f"/v1/models/colour/versions/{digits}",
        f"/v2/models/colour/versions/{digits}/ready",
    ):
        assert ask(server + path).status == 404
    answer = ask(server + INFER, {}, {"Inference-Header-Content-Length": digits})
    assert (answer.status, "not a number of bytes" in answer.body["error"]) == (400, True)
    for shape in ([10**20, 0, 1, 3], [1, 10**20, 10**20, 3], [0, 1, 1, 3]):
        described = tensor([], "images", "UINT8", shape)
        answer = infer(server, {"parameters": AS_PIXELS, "inputs": [described]})
        assert answer.status == 400, answer.body


@pytest.mark.parametrize("path", [PREDICT, INFER])
def test_more_json_values_than_it_takes_to_hold_up_others_are_refused(server, path):
    answer = ask(server + path, b'{"instances":[' + b"{}," * 2_000_000 + b"{}]}")
    assert answer.status == 413
    assert "up to 4000003 values, of at most 2000000" in answer.body["error"]


LONG = ["x" * 100_000] + ["a"] * 999


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (PREDICT, {"instances": [LONG]} | AS_PIXELS),
        (
            INFER,
            {"inputs": [tensor(LONG, "images", "UINT8", (1, 1, 1, 3))], "parameters": AS_PIXELS},
        ),
    ],
)
def test_text_among_pixels_takes_no_more_memory_than_it_is_long(server, path, body):
    tracemalloc.start()
    try:
        answer = ask(server + path, body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (answer.status, peak < 10_000_000) == (400, True), peak


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (PREDICT, {"instances": [GOOD_IMAGE]}),
        (INFER, {"inputs": [tensor([GOOD_IMAGE["b64"]], shape=[1])]}),
    ],
)
def test_others_are_answered_while_a_request_is_read(server, monkeypatch, path, body):
    reading, others = threading.Event(), threading.Event()
    decode, answered = base64.b64decode, []

    def held(text, validate):
        reading.set()
        answered.append(others.wait(10))
        return decode(text, validate=validate)

    monkeypatch.setattr(base64, "b64decode", held)
    request = threading.Thread(target=ask, args=(server + path, body))
    request.start()
    assert reading.wait(10)
    assert ask(f"{server}/healthz").status == 200
    others.set()
    request.join()
    assert answered == [True]


@pytest.mark.parametrize(
    ("length", "told"), [("x", "not a number of bytes"), ("4", "not JSON that can be read")]
)
def test_a_wrong_length_of_the_json_part_is_refused(server, length, told):
    body = json.dumps({"inputs": [tensor()]}).encode()
    answer = ask(f"{server}{INFER}", body, {"Inference-Header-Content-Length": length})
    assert answer.status == 400
    assert told in answer.body["error"]


@pytest.mark.parametrize("binary", [b"\1\0", b"\5\0\0\0abc"])
def test_binary_data_that_ends_early_is_refused(server, binary):
    described = tensor(shape=[1], binary_data_size=len(binary))
    answer = infer(server, {"inputs": [described]}, binary)
    assert answer.status == 400
    assert "the binary data ends inside" in answer.body["error"]


def test_binary_data_is_read_no_further_than_its_shape_says(server):
    described = tensor(shape=[2], binary_data_size=400)
    answer = infer(server, {"inputs": [described]}, bytes(400))
    assert answer.status == 400
    assert "does not have 2 elements, as its shape says" in answer.body["error"]


def test_forms_without_a_file_are_refused(server):
    answer = ask(f"{server}/classify/colour", *form(('name="note"', b"mine")))
    assert answer.status == 400
    assert "the form has no file" in answer.body["error"]
    body, headers = form(('name="image"; filename="a.jpg"', b"x"))
    for broken in (body[:-20], b"--other\r\n"):
        assert ask(f"{server}/classify/colour", broken, headers).status == 400
    headers = {"Content-Type": "multipart/form-data"}
    assert ask(f"{server}/classify/colour", body, headers).status == 400


def truncated_and_bombs():
    photograph = Image.effect_noise((300, 200), 90).convert("RGB")
    jpeg, png = encode(photograph, "JPEG", {}), encode(photograph, "PNG", {})
    huge = bytearray(encode(Image.new("RGB", (1, 1)), "BMP", {}))
    huge[18:26] = struct.pack("<ii", 60_000, 60_000)
    bomb = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(bomb, "PNG", optimize=True)
    return {
        "half a JPEG": (jpeg[: len(jpeg) // 2], "is not a whole image (jpeg::Unc"),
        "half a PNG": (png[: len(png) // 2], "is not a whole image (Invalid PNG"),
        "the head of a JPEG": (jpeg[:20], "is not an image"),
        "144 megapixels in a small PNG": (bomb.getvalue(), "pixels"),
        "a BMP that declares 3.6 gigapixels": (bytes(huge), "too many pixels"),
    }


@pytest.mark.parametrize("which", truncated_and_bombs())
def test_images_that_cannot_or_must_not_be_decoded_are_refused(server, which):
    encoded, told = truncated_and_bombs()[which]
    answer = ask(f"{server}/classify/colour", encoded)
    assert answer.status == 400
    assert told in answer.body["error"]
    good = ask(f"{server}/classify/colour", one_colour(PICTURES[0]))
    assert good.body["predictions"][0]["class"] == "red"


def test_metrics_count_what_was_answered(server):
    def counted(sample):
        lines = ask(f"{server}/metrics").body.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(sample))

    requests = 'serving_requests_total{route="/classify/{name}",status="200"}'
    images = 'serving_images_total{function="classify",model="colour",version="3"}'
    before = counted(requests), counted(images)
    ask(f"{server}/classify/colour", one_colour(PICTURES[0]))
    assert (counted(requests), counted(images)) == (before[0] + 1, before[1] + 1)
    assert counted('serving_versions{model="colour",version="3"}') == 1
    assert counted("serving_images_in_flight") == 0
