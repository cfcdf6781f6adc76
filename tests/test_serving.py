"""No skew: what evaluation measured is what every way to ask the server answers."""

import socket

import numpy as np
import pytest
import tensorflow as tf
from photographs import encode, photograph, picture
from PIL import Image
from served import ask, b64, serving

from pipelines.config import ExportConfig, PrepareConfig, ServeConfig
from pipelines.data.images import evaluation_image
from pipelines.data.preparation import prepare
from pipelines.data.streams import encoded_images, evaluation_stream, open_dataset
from pipelines.errors import BadInput
from pipelines.exporting.export import export
from pipelines.exporting.versions import latest_version
from pipelines.serving.server import serve
from pipelines.training.run import Run
from pipelines.training.train import train
from tests.conftest import numbered_config

AT_A_TIME = 32


def batched(files):
    return [files[at : at + AT_A_TIME] for at in range(0, len(files), AT_A_TIME)]


def top5(probabilities):
    """Class ids and probabilities, `(N, 5)` each, of probabilities `(N, num_classes)`."""
    ids = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
    return ids, np.take_along_axis(probabilities, ids, axis=1)


def by_saved_model(version, files):
    answer = tf.saved_model.load(version).signatures["serving_default"]
    columns = [answer(image_bytes=tf.constant(part)) for part in batched(files)]
    return tuple(
        np.concatenate([column[name].numpy() for column in columns])
        for name in ("class_ids", "probabilities")
    )


def by_predict(server, model, files):
    rows = []
    for part in batched(files):
        body = {"instances": [b64(file) for file in part]}
        rows += ask(f"{server}/v1/models/{model}:predict", body).body["predictions"]
    return tuple(np.array([row[name] for row in rows]) for name in ("class_ids", "probabilities"))


def by_infer(server, model, files):
    parts = []
    for part in batched(files):
        data = [b64(file)["b64"] for file in part]
        tensor = {"name": "image_bytes", "datatype": "BYTES", "shape": [len(part)], "data": data}
        outputs = ask(f"{server}/v2/models/{model}/infer", {"inputs": [tensor]}).body["outputs"]
        parts.append({o["name"]: np.array(o["data"]).reshape(o["shape"]) for o in outputs})
    return tuple(
        np.concatenate([part[name] for part in parts]) for name in ("class_ids", "probabilities")
    )


def by_classify(server, model, files):
    rows = [ask(f"{server}/classify/{model}", file).body["predictions"] for file in files]
    return tuple(
        np.array([[prediction[name] for prediction in row] for row in rows])
        for name in ("class_id", "probability")
    )


def assert_top5(ids, given, expected):
    """The top-5 is the expected one, but for the order of classes that are as probable."""
    np.testing.assert_allclose(given, top5(expected)[1], atol=1e-4)
    np.testing.assert_allclose(np.take_along_axis(expected, ids, axis=1), given, atol=1e-4)
    assert (np.diff(np.sort(ids, axis=1), axis=1) > 0).all()


def assert_all_agree(server, version, files, expected):
    """Asks in every way for every file."""
    ways = [by_saved_model(version, files)]
    ways += [by(server, version.parent.name, files) for by in (by_predict, by_infer, by_classify)]
    for ids, given in ways:
        assert_top5(ids, given, expected)


def evaluated(run, data):
    """The trained model's own probabilities on the held-out images, `(N, num_classes)`."""
    trained = Run.open(run)
    model = trained.classifier()
    stream = evaluation_stream(open_dataset(data), "validation", trained.config().input, 64)
    return np.concatenate(
        [tf.nn.softmax(model(pixels)).numpy()[mask] for pixels, _, mask in stream]
    )


@pytest.fixture(scope="module")
def server(saved_models):
    with serving(saved_models) as url:
        yield url


def test_evaluation_and_every_protocol_agree_on_every_held_out_image(
    server, saved_models, run, digits
):
    files = list(encoded_images(open_dataset(digits), "validation").as_numpy_iterator())
    assert len(files) >= 256
    version = latest_version(saved_models / "digits")
    assert_all_agree(server, version, files, evaluated(run, digits))


def test_evaluation_and_every_protocol_agree_on_odd_images(server, saved_models, run):
    turned = Image.Exif()
    turned[0x0112] = 6
    files = [
        encode(picture(1, (300, 200), "L"), "JPEG", {}),
        encode(picture(2, (300, 200), "RGBA"), "PNG", {}),
        encode(picture(3, (300, 200), "LA"), "PNG", {}),
        encode(picture(4, (300, 200)), "JPEG", {"exif": turned}),
        encode(picture(5, (1, 1)), "PNG", {}),
        encode(picture(6, (2, 700)), "JPEG", {}),
        encode(picture(7, (200, 300), "CMYK"), "JPEG", {}),
        encode(picture(8, (90, 60)), "WEBP", {}),
        encode(picture(9, (90, 60)).convert("P"), "GIF", {}),
        encode(picture(10, (90, 60)), "BMP", {}),
    ]
    trained = Run.open(run)
    pixels = tf.stack([evaluation_image(tf.constant(f), trained.config().input) for f in files])
    expected = tf.nn.softmax(trained.classifier()(pixels)).numpy()
    assert_all_agree(server, latest_version(saved_models / "digits"), files, expected)


def test_the_features_are_those_of_the_saved_model(server, saved_models):
    files = [encode(picture(seed, (50, 40)), "PNG", {}) for seed in range(3)]
    saved = tf.saved_model.load(latest_version(saved_models / "digits"))
    expected = saved.signatures["features"](image_bytes=tf.constant(files))["features"]
    body = {"signature_name": "features", "inputs": [b64(file) for file in files]}
    outputs = ask(f"{server}/v1/models/digits:predict", body).body["outputs"]
    np.testing.assert_allclose(outputs, expected, atol=1e-5)


@pytest.mark.slow
def test_every_engine_answers_as_evaluation_does(run, digits, tmp_path):
    engines = ("savedmodel", "onnx", "litert", "openvino")
    export(ExportConfig(run, tmp_path / "digits", format=",".join(engines)))
    expected = evaluated(run, digits)
    files = list(encoded_images(open_dataset(digits), "validation").as_numpy_iterator())
    for engine in engines:
        with serving(tmp_path, engine=engine) as url:
            assert_top5(*by_predict(url, "digits", files), expected)


@pytest.mark.slow
def test_all_agree_on_jpegs_larger_than_what_a_batch_normalised_network_sees(tmp_path):
    """Where the window, the shrinking decoder, the filter and the folding all have a part."""
    for index in range(96):
        split = "train" if index < 64 else "val"
        size = (200 + 9 * (index % 32), 460 - 8 * (index % 32))
        photograph(tmp_path / "jpegs" / split / f"class{index % 8}" / f"{index}.jpg", index, size)
    data, folder = tmp_path / "data", tmp_path / "run"
    prepare(PrepareConfig(str(tmp_path / "jpegs"), data))
    arguments = ["--input.size_px", "128", "--epochs", "2", "--schedule.warmup_epochs", "1"]
    train(numbered_config(data, "--run", str(folder), *arguments))
    export(ExportConfig(folder, tmp_path / "models" / "photographs"))
    files = list(encoded_images(open_dataset(data), "validation").as_numpy_iterator())
    expected = evaluated(folder, data)
    assert len(files) == 32
    # The network tells them apart.
    assert expected.std(axis=0).max() > 1e-3
    with serving(tmp_path / "models") as url:
        version = latest_version(tmp_path / "models" / "photographs")
        assert_all_agree(url, version, files, expected)


def test_a_port_in_use_is_told(saved_models):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BadInput, match=f"127.0.0.1:{port} is in use; give another --port"):
            serve(ServeConfig(saved_models, port=port))


def test_the_folder_of_one_model_is_told_apart(saved_models):
    with (
        pytest.raises(BadInput, match="is one model; give the folder above: "),
        serving(saved_models / "digits"),
    ):
        pass


def test_a_folder_without_models_is_told(tmp_path):
    with pytest.raises(BadInput, match="no exported model in"), serving(tmp_path):
        pass
