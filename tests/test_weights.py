"""Published weights: fetched whole or not at all, loaded into the right network or not at all."""

import hashlib
import importlib
import inspect
import logging
import os
import pickle
import re
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from keras_zoo import build, card, list_models
from keras_zoo.download import cache_folder, fetch
from keras_zoo.registry import Published
from keras_zoo.weight_sets import SUFFIXES, WEIGHT_SETS, WeightSet, input_spec, published_sets
from keras_zoo.weights import _FORMATS, read_state
from pipelines.training.model import image_classifier

BODY = np.random.default_rng(0).bytes(3_000_000)
DIGEST = "sha256:" + hashlib.sha256(BODY).hexdigest()[:8]


def _raises_one_line(*parts):
    """Expects a ValueError of one line that holds every part."""
    pattern = "".join(f"(?=.*{re.escape(str(part))})" for part in parts)
    return pytest.raises(ValueError, match=rf"\A{pattern}[^\n]*\Z")


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.ranges.append(self.headers["Range"])
        body = server.files.get(self.path)
        if body is None:
            self.send_error(404)
            return
        start = 0
        if server.honours_range and self.headers["Range"]:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        if start >= len(body) and start:
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start : start + server.bytes_a_response])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    """A web server on this machine that knows ranges, and can be told to hang up early."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.files = {"/models/net.bin": BODY}
        server.ranges = []
        server.honours_range = True
        server.bytes_a_response = len(BODY)
        server.url = f"http://127.0.0.1:{server.server_port}/models/net.bin"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def _files(folder):
    return [path.name for path in folder.iterdir() if path.name != ".lock"]


def test_a_file_arrives_under_its_name_and_is_fetched_once(server, tmp_path):
    for _ in range(2):
        path = fetch(server.url, DIGEST, tmp_path / "cache")
        assert path.read_bytes() == BODY
    assert _files(path.parent) == ["net.bin"]
    assert server.ranges == [None]


def test_an_interrupted_download_goes_on_where_it_stopped(server, tmp_path):
    server.bytes_a_response = 1_000_000
    for arrived in (1_000_000, 2_000_000):
        with _raises_one_line(server.url, f"{arrived:,} of 3,000,000", tmp_path / "net.bin"):
            fetch(server.url, DIGEST, tmp_path)
        assert (tmp_path / "net.bin.part").stat().st_size == arrived
        assert not (tmp_path / "net.bin").exists()
    assert fetch(server.url, DIGEST, tmp_path).read_bytes() == BODY
    assert server.ranges == [None, "bytes=1000000-", "bytes=2000000-"]


def test_a_server_without_ranges_is_read_from_the_start(server, tmp_path):
    (tmp_path / "net.bin.part").write_bytes(BODY[:1000])
    server.honours_range = False
    assert fetch(server.url, DIGEST, tmp_path).read_bytes() == BODY


def test_a_part_that_is_already_whole_is_accepted(server, tmp_path):
    (tmp_path / "net.bin.part").write_bytes(BODY)
    assert fetch(server.url, DIGEST, tmp_path).read_bytes() == BODY


def test_a_download_with_another_hash_leaves_nothing_behind(server, tmp_path):
    with _raises_one_line(server.url, "sha256:00000000", DIGEST):
        fetch(server.url, "sha256:00000000", tmp_path)
    assert _files(tmp_path) == []


def test_a_damaged_part_is_noticed_and_the_next_try_is_whole(server, tmp_path):
    (tmp_path / "net.bin.part").write_bytes(bytes(1000))
    with _raises_one_line("removed", "try again"):
        fetch(server.url, DIGEST, tmp_path)
    assert fetch(server.url, DIGEST, tmp_path).read_bytes() == BODY


@pytest.mark.parametrize("body", [BODY[:-1], b"<html>sign in</html>"], ids=["truncated", "other"])
def test_a_file_put_there_by_hand_is_checked_and_never_removed(server, tmp_path, body):
    path = tmp_path / "net.bin"
    path.write_bytes(body)
    with _raises_one_line(path, DIGEST, "remove it"):
        fetch(server.url, DIGEST, tmp_path)
    assert path.read_bytes() == body
    path.write_bytes(BODY)
    assert fetch(server.url, DIGEST, tmp_path) == path
    assert server.ranges == []


def test_offline_the_message_names_the_address_and_the_place(tmp_path):
    url = "http://127.0.0.1:9/models/net.bin"
    with _raises_one_line(url, "put the file at", tmp_path / "net.bin"):
        fetch(url, DIGEST, tmp_path)


def test_a_file_that_is_not_published_any_more_is_one_line(server, tmp_path):
    with _raises_one_line("404", tmp_path / "gone.bin"):
        fetch(server.url.replace("net", "gone"), DIGEST, tmp_path)


def test_several_may_fetch_one_file_at_once(server, tmp_path):
    threads = [
        threading.Thread(target=fetch, args=(server.url, DIGEST, tmp_path)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert _files(tmp_path) == ["net.bin"]
    assert server.ranges == [None]


@pytest.mark.parametrize("folder", ["file", "file/below", "/proc/nowhere"])
def test_a_cache_folder_that_cannot_be_used_is_one_line(tmp_path, folder):
    (tmp_path / "file").touch()
    with _raises_one_line(tmp_path / folder, "KERAS_ZOO_CACHE"):
        fetch("http://127.0.0.1:9/net.bin", DIGEST, tmp_path / folder)


def test_the_cache_is_in_the_home_folder_unless_the_environment_says_otherwise(monkeypatch):
    monkeypatch.delenv("KERAS_ZOO_CACHE", raising=False)
    assert cache_folder() == Path.home() / ".cache" / "keras_zoo"
    monkeypatch.setenv("KERAS_ZOO_CACHE", "/somewhere")
    assert cache_folder() == Path("/somewhere")


@pytest.mark.parametrize("row", WEIGHT_SETS.values(), ids=lambda row: f"{row.network}-{row.name}")
def test_every_set_is_of_a_network_at_its_published_size(row):
    assert row.input.shape == card(row.network).input.shape
    assert re.fullmatch(r"sha256:[0-9a-f]{8,64}|md5:[0-9a-f]{32}", row.digest)
    assert row.url == f"{row.url.rpartition('/')[0]}/{row.file}"
    assert row.url.startswith("https://")
    assert 50 < row.published.top1 < row.published.top5 < 97


def test_the_default_set_is_the_first_and_agrees_with_the_card_where_both_cite_one_source():
    for name in list_models():
        sets, ours = published_sets(name), card(name).published
        assert [row.name for row in sets[:1]] in ([], ["imagenet"])
        assert all(row.published == ours for row in sets if row.published.source == ours.source)


@pytest.mark.parametrize(
    "function",
    [
        keras.applications.VGG16,
        keras.applications.VGG19,
        keras.applications.InceptionV3,
        keras.applications.ResNet50,
    ],
)
def test_a_keras_set_is_a_file_that_keras_fetches_by_the_same_hash(function):
    source = inspect.getsource(inspect.getmodule(function))
    folder = function.__name__.lower().replace("v3", "_v3").removesuffix("50")
    rows = [row for row in WEIGHT_SETS.values() if f"/{folder}/" in row.url]
    assert len(rows) == (6 if folder == "resnet" else 1)
    for row in rows:
        assert row.digest.removeprefix("md5:") in source
        assert row.url.rpartition("/")[0] in source.replace('"\n    "', "")


@pytest.mark.parametrize(
    ("network", "name", "module"),
    [
        ("vgg16", "imagenet-keras", keras.applications.vgg16),
        ("inception_v3", "imagenet-keras", keras.applications.inception_v3),
        ("resnet50_v1", "imagenet", keras.applications.resnet),
        ("resnet50_v2", "imagenet", keras.applications.resnet_v2),
    ],
)
def test_a_keras_set_sees_the_pixels_that_keras_makes(network, name, module):
    pixels = np.random.default_rng(0).uniform(0, 255, (5, 5, 3)).astype("float32")
    spec = input_spec(network, name)
    ours = pixels[..., ::-1] if spec.channels == "BGR" else pixels
    ours = (ours - spec.mean) / spec.std
    np.testing.assert_allclose(ours, module.preprocess_input(pixels.copy()), atol=1e-4)


@pytest.mark.parametrize("network", ["googlenet_bn", "inception_v3"])
def test_the_spec_holds_what_torchvision_does_inside_these_networks(network):
    spec = input_spec(network, "imagenet")
    for channel, (mean, std) in enumerate([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]):
        for pixel in (0, 100, 255):
            normalised = (pixel / 255 - mean) / std
            inside = normalised * (std / 0.5) + (mean - 0.5) / 0.5
            assert (pixel - spec.mean[channel]) / spec.std[channel] == pytest.approx(inside)


@pytest.mark.peers
def test_a_torchvision_set_is_what_torchvision_publishes(torchvision):
    for row in WEIGHT_SETS.values():
        if "pytorch.org" not in row.url:
            continue
        model = {"alexnet_owt": "alexnet", "googlenet_bn": "googlenet"}.get(
            row.network, row.network
        )
        version = "IMAGENET1K_V2" if row.name.endswith("v2") else "IMAGENET1K_V1"
        theirs = torchvision.models.get_model_weights(model)[version]
        preset = theirs.transforms()
        metrics = theirs.meta["_metrics"]["ImageNet-1K"]
        assert row.url == theirs.url
        assert (row.published.top1, row.published.top5) == (metrics["acc@1"], metrics["acc@5"])
        assert (row.input.size_px, row.input.resize_px) == (
            preset.crop_size[0],
            preset.resize_size[0],
        )
        assert row.input.interpolation == preset.interpolation.value


@pytest.mark.peers
def test_the_timm_set_is_what_timm_publishes(torchvision):
    theirs = pytest.importorskip("timm").get_pretrained_cfg("seresnet50.ra2_in1k")
    row = WEIGHT_SETS["seresnet50", "imagenet"]
    assert row.url.rpartition("/releases/")[2] == theirs.url.rpartition("/releases/")[2]
    assert row.input.size_px == theirs.input_size[-1]
    assert row.input.crop_fraction == theirs.crop_pct
    assert row.input.interpolation == theirs.interpolation
    assert row.input.mean == pytest.approx([255 * value for value in theirs.mean])
    assert row.input.std == pytest.approx([255 * value for value in theirs.std])


def test_a_file_sees_what_the_set_of_its_name_or_its_format_sees():
    assert input_spec("resnet50") == card("resnet50").input
    assert input_spec("resnet50", "mine.weights.h5") == card("resnet50").input
    assert input_spec("resnet50", "a/resnet50-11ad3fa6.pth").resize_px == 232
    assert input_spec("vgg16", Path("vgg.h5")).channels == "BGR"
    assert input_spec("vgg16", "vgg.pth").channels == "RGB"


@pytest.mark.parametrize("weights", ["imagnet", "imagenet-keras", "resnet18"])
def test_an_unknown_set_is_answered_with_those_there_are(weights):
    with _raises_one_line(weights, "'imagenet'", ".safetensors"):
        build("resnet18", weights=weights)


def test_a_network_without_published_weights_says_so():
    with _raises_one_line("simple_cnn", "none published"):
        build("simple_cnn", weights="imagenet")


def _randomised(name, **options):
    """A network none of whose weights is what it was built with."""
    model = build(name, **options)
    rng = np.random.default_rng(1)
    for variable in model.weights:
        variable.assign(rng.uniform(0.1, 1, variable.shape))
    return model


def _same_weights(first, second, but=()):
    for one, other in zip(first.layers, second.layers, strict=True):
        equal = all(map(np.array_equal, one.get_weights(), other.get_weights()))
        assert equal == (one.name not in but), one.name


@pytest.fixture(params=[".weights.h5", ".keras"])
def saved(request, tmp_path):
    """A simple_cnn in one of our formats: the model and its file."""
    model = _randomised("simple_cnn")
    path = tmp_path / f"model{request.param}"
    (model.save if request.param == ".keras" else model.save_weights)(path)
    return model, path


def test_our_files_come_back_bit_by_bit(saved, caplog):
    model, path = saved
    _same_weights(model, build("simple_cnn", weights=path))
    _same_weights(model, build("simple_cnn", weights=str(path)))
    assert not caplog.records


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_what_training_saves_is_loaded_from_within_its_classifier(tmp_path, suffix, caplog):
    trained = image_classifier("simple_cnn", card("simple_cnn").input, 10)
    trained.compile("sgd", "mse")
    trained.fit(np.ones((1, 32, 32, 1), "uint8"), np.ones((1, 10)), verbose=0)
    path = tmp_path / f"model{suffix}"
    (trained.save if suffix == ".keras" else trained.save_weights)(path)
    _same_weights(trained.get_layer("simple_cnn"), build("simple_cnn", weights=path))
    assert not caplog.records
    with _raises_one_line("resnet18", "stem_conv/0"):
        build("resnet18", weights=path)


def test_a_file_with_two_networks_of_one_kind_is_refused(tmp_path):
    image = keras.Input((32, 32, 1))
    twins = [build("simple_cnn"), build("simple_cnn")]
    twins[1].name = "other"
    path = tmp_path / "model.weights.h5"
    keras.Model(image, [twin(image) for twin in twins]).save_weights(path)
    with _raises_one_line("cannot load", path, "two 'stage1_conv/0'"):
        build("simple_cnn", weights=path)


@pytest.mark.parametrize(("name", "px"), [("alexnet", 67), ("inception_v3", 75)])
def test_networks_with_layers_of_our_own_come_back_from_a_keras_file(tmp_path, name, px):
    options = {"num_classes": 5, "input_shape": (px, px, 3)}
    model = _randomised(name, **options)
    model.save(tmp_path / "model.keras")
    _same_weights(model, build(name, **options, weights=tmp_path / "model.keras"))


def test_auxiliary_heads_are_loaded_where_they_are_wanted(tmp_path, caplog):
    path = tmp_path / "model.weights.h5"
    options = {"num_classes": 5, "input_shape": (96, 96, 3)}
    trained = _randomised("googlenet", aux_heads=True, **options)
    trained.save_weights(path)
    _same_weights(trained, build("googlenet", aux_heads=True, **options, weights=path))
    for layer in build("googlenet", **options, weights=path).layers:
        assert all(map(np.array_equal, layer.get_weights(), trained.get_layer(layer.name).weights))
    assert not caplog.records
    options["num_classes"] = 6
    other = build("googlenet", aux_heads=True, **options, weights=path)
    _same_weights(trained, other, but=("logits", "aux1_logits", "aux2_logits"))


def test_another_number_of_classes_leaves_the_head_fresh_and_says_so(saved, caplog):
    model, path = saved
    other = build("simple_cnn", num_classes=7, weights=path)
    assert other.get_layer("logits").units == 7
    _same_weights(model, other, but=("logits",))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "classifier of 7 classes is fresh" in record.getMessage()
    assert "has 10" in record.getMessage()


def test_features_take_what_they_have_in_common_with_the_file(saved, caplog):
    model, path = saved
    features = build("simple_cnn", include_top=False, weights=path)
    for layer in features.layers:
        assert all(map(np.array_equal, layer.get_weights(), model.get_layer(layer.name).weights))
    assert not caplog.records


def test_another_input_size_with_dense_layers_is_one_line(saved):
    _, path = saved
    with _raises_one_line("fc1/0", "(2304, 128)", "(5184, 128)", "simple_cnn"):
        build("simple_cnn", input_shape=(44, 44, 1), weights=path)


def test_the_default_set_is_fetched_checked_and_loaded(server, tmp_path, monkeypatch, saved):
    model, path = saved
    server.files["/models/" + path.name] = path.read_bytes()
    row = WeightSet(
        "simple_cnn",
        "imagenet",
        server.url.replace("net.bin", path.name),
        "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest(),
        card("simple_cnn").input,
        Published(99.0, 100.0, "here"),
    )
    server.bytes_a_response = 10**9
    monkeypatch.setitem(WEIGHT_SETS, ("simple_cnn", "imagenet"), row)
    monkeypatch.setenv("KERAS_ZOO_CACHE", str(tmp_path / "cache"))
    for _ in range(2):
        _same_weights(model, build("simple_cnn", weights="imagenet"))
    assert server.ranges == [None]


@pytest.mark.parametrize(
    ("of", "into", "fault"),
    [
        ("resnet18", "resnet34", "lack 'stage1_block3_1_conv/0'"),
        ("resnet34", "resnet18", "an unknown 'stage2_block3_1_bn/0'"),
        ("simple_cnn", "resnet18", "lack 'stem_conv/0'"),
    ],
)
def test_weights_of_another_network_are_refused(tmp_path, of, into, fault):
    path = tmp_path / "model.weights.h5"
    build(of, num_classes=5).save_weights(path)
    with _raises_one_line(into, fault):
        build(into, num_classes=5, weights=path)


def test_a_missing_variable_is_named(tmp_path):
    path = tmp_path / "model.weights.h5"
    build("simple_cnn").save_weights(path)
    with h5py.File(path, "a") as file:
        del file["layers/conv2d_1/vars/1"]
    with _raises_one_line("stage2_conv/1", "simple_cnn"):
        build("simple_cnn", weights=path)


def test_a_truncated_file_is_one_line(saved):
    _, path = saved
    path.write_bytes(path.read_bytes()[:-100_000])
    with _raises_one_line("cannot load", path):
        build("simple_cnn", weights=path)


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    with _raises_one_line("no file at", tmp_path / "model.keras"):
        build("simple_cnn", weights=tmp_path / "model.keras")


def test_a_file_without_auxiliary_heads_says_so_where_they_are_wanted(tmp_path):
    path = tmp_path / "model.weights.h5"
    options = {"num_classes": 5, "input_shape": (96, 96, 3)}
    build("googlenet", **options).save_weights(path)
    with _raises_one_line(path, "no auxiliary heads", "leave out aux_heads"):
        build("googlenet", aux_heads=True, **options, weights=path)


def test_a_classifiers_bias_that_is_no_vector_is_one_line(tmp_path):
    path = tmp_path / "model.weights.h5"
    build("simple_cnn").save_weights(path)
    with h5py.File(path, "a") as file:
        del file["layers/dense_1/vars/1"]
        file["layers/dense_1/vars/1"] = np.float32(0)
    with _raises_one_line(path, "'logits/1' is ()"):
        build("simple_cnn", weights=path)


def test_every_suffix_has_a_reader_and_another_one_is_one_line(tmp_path):
    assert tuple(_FORMATS) == SUFFIXES
    (tmp_path / "model.bin").touch()
    with _raises_one_line("model.bin", *SUFFIXES):
        read_state(tmp_path / "model.bin")


@pytest.mark.parametrize("network", [None, "simple_cnn"], ids=["code alone", "code and network"])
def test_code_in_a_keras_file_is_not_run(tmp_path, network):
    touched = tmp_path / "touched"
    inputs = keras.Input((32, 32, 1))
    code = keras.layers.Lambda(lambda x, path=str(touched): (Path(path).touch(), x)[1])
    path = tmp_path / "model.keras"
    trained = _randomised(network) if network else None
    keras.Model(inputs, (trained or keras.layers.Identity())(code(inputs))).save(path)
    touched.unlink(missing_ok=True)
    if network:
        _same_weights(trained, build("simple_cnn", weights=path))
    else:
        with _raises_one_line("lack 'stage1_conv/0'", "simple_cnn"):
            build("simple_cnn", weights=path)
    assert not touched.exists()


@pytest.mark.parametrize(
    "link",
    [h5py.ExternalLink("secret.h5", "secret"), h5py.SoftLink("/layers/conv2d/vars/0")],
    ids=["external", "soft"],
)
def test_an_hdf5_file_that_points_elsewhere_is_refused(tmp_path, link):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["secret"] = np.zeros((3, 3, 32, 64), "float32")
    path = tmp_path / "model.weights.h5"
    build("simple_cnn").save_weights(path)
    with h5py.File(path, "a") as file:
        del file["layers/conv2d_1/vars/0"]
        file["layers/conv2d_1/vars/0"] = link
    with _raises_one_line("cannot load", path):
        build("simple_cnn", weights=path)


@pytest.mark.parametrize(
    ("file", "module"), [("a.pth", "torch"), ("a.safetensors", "safetensors.numpy")]
)
def test_without_its_library_a_file_names_the_package(tmp_path, monkeypatch, file, module):
    (tmp_path / file).touch()
    monkeypatch.setitem(os.sys.modules, module, None)
    with _raises_one_line(f"pip install {module.partition('.')[0]}"):
        build("resnet18", weights=tmp_path / file)


def _write_legacy(path, layers):
    """A weights file as Keras 2 wrote it: layers in order, variables by any name."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in layers]
        for name, variables in layers.items():
            group = file.create_group(name)
            group.attrs["weight_names"] = [variable.encode() for variable in variables]
            for variable, array in variables.items():
                group[variable] = array


def test_legacy_files_are_read_by_order_not_by_the_names_they_used(tmp_path):
    kernel, vector = np.ones((3, 3, 1, 2), "float32"), np.arange(2, dtype="float32")
    path = tmp_path / "old.h5"
    _write_legacy(
        path,
        {
            "input_1": {},
            "block1_conv1": {"block1_conv1_W_1:0": kernel, "block1_conv1_b_1:0": vector},
            "bn": {f"bn/bn/{name}:0": vector for name in "gbmv"},
            "bn_without_scale": {f"bn_without_scale/{name}:0": vector for name in "bmv"},
            "probs": {"probs/kernel:0": np.ones((2, 10)), "probs/bias:0": np.zeros(10)},
        },
    )
    assert list(read_state(path)) == [
        "block1_conv1/kernel",
        "block1_conv1/bias",
        "bn/gamma",
        "bn/beta",
        "bn/moving_mean",
        "bn/moving_variance",
        "bn_without_scale/beta",
        "bn_without_scale/moving_mean",
        "bn_without_scale/moving_variance",
        "probs/kernel",
        "probs/bias",
    ]


def test_a_file_of_keras_applications_is_loaded(tmp_path, caplog):
    peer = keras.applications.ResNet50(weights=None, classes=10, classifier_activation=None)
    path = tmp_path / "resnet50.h5"
    layers = {
        layer.name: {
            f"{layer.name}/{variable.name}:0": keras.ops.convert_to_numpy(variable)
            for variable in layer.weights
        }
        for layer in peer.layers
    }
    _write_legacy(path, layers)
    model = build("resnet50_v1", num_classes=10, weights=path)
    image = np.random.default_rng(0).normal(size=(1, 224, 224, 3)).astype("float32")
    np.testing.assert_allclose(model(image), peer(image), rtol=1e-4, atol=1e-5)
    assert not caplog.records


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def torchvision(torch):
    return pytest.importorskip("torch_peers", exc_type=ImportError).torchvision


@pytest.mark.peers
@pytest.mark.parametrize("file", ["model.pth", "model.safetensors"])
def test_a_state_dict_of_torchvision_is_loaded(torchvision, torch, tmp_path, file):
    peer = torchvision.models.resnet18(num_classes=5)
    path = tmp_path / file
    if path.suffix == ".pth":
        torch.save(peer.state_dict(), path)
    else:
        pytest.importorskip("safetensors.torch").save_file(peer.state_dict(), path)
    model = build("resnet18", num_classes=5, weights=path)
    np.testing.assert_array_equal(
        model.get_layer("logits").kernel, peer.fc.weight.detach().numpy().T
    )


@pytest.mark.peers
@pytest.mark.parametrize("name", ["alexnet_owt", "googlenet_bn", "inception_v3", "seresnet50"])
def test_a_published_file_and_its_spec_make_the_publishers_logits_of_the_same_pixels(
    torchvision, torch, tmp_path, name
):
    torch_peers = importlib.import_module("torch_peers")
    peer = torch_peers.peer(name, 127)
    peer.transform_input = True
    path = tmp_path / WEIGHT_SETS[name, "imagenet"].file
    torch.save(peer.state_dict(), path)
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 127, 127, 3))
    theirs = (pixels / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    with torch.no_grad():
        theirs = peer(torch.from_numpy(theirs.transpose(0, 3, 1, 2)).float()).numpy()
    spec = input_spec(name, path)
    model = build(name, num_classes=10, input_shape=(127, 127, 3), weights=path)
    ours = np.asarray(model((pixels - spec.mean) / spec.std))
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()
    assert np.ptp(theirs) > 1e-3 * np.abs(theirs).max()


@pytest.mark.peers
def test_a_state_dict_of_another_network_or_with_a_key_missing_is_refused(
    torchvision, torch, tmp_path
):
    path = tmp_path / "model.pth"
    torch.save(torchvision.models.resnet34().state_dict(), path)
    with _raises_one_line("resnet18"):
        build("resnet18", weights=path)
    state = torchvision.models.resnet18().state_dict()
    del state["layer3.1.bn2.running_var"]
    torch.save(state, path)
    with _raises_one_line("layer3.1.bn2.running_var"):
        build("resnet18", weights=path)
    for other in ({"state": state, "epoch": 3}, {3: torch.zeros(1)}):
        torch.save(other, path)
        with _raises_one_line(path, "state dict"):
            build("resnet18", weights=path)
    torch.save({"fc.bias": torch.tensor(0.0)}, path)
    with _raises_one_line(path, "'fc.bias' is ()"):
        build("resnet18", weights=path)


class _Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (shutil.copyfile, (__file__, self.path))


@pytest.mark.peers
def test_a_malicious_pickle_is_refused_and_not_run(torch, tmp_path):
    touched = str(tmp_path / "touched")
    for path, write in (
        (tmp_path / "zip.pth", lambda path: torch.save({"fc.bias": _Bomb(touched)}, path)),
        (tmp_path / "raw.pth", lambda path: path.write_bytes(pickle.dumps(_Bomb(touched), 2))),
    ):
        write(path)
        with _raises_one_line(path, "nothing in it was executed"):
            build("resnet18", weights=path)
        assert not Path(touched).exists()


@pytest.mark.peers
def test_a_truncated_state_dict_is_one_line(torchvision, torch, tmp_path):
    for file in ("model.pth", "model.safetensors"):
        path = tmp_path / file
        state = torchvision.models.resnet18().state_dict()
        if path.suffix == ".pth":
            torch.save(state, path)
        else:
            pytest.importorskip("safetensors.torch").save_file(state, path)
        path.write_bytes(path.read_bytes()[:-1_000_000])
        with _raises_one_line("cannot load", path):
            build("resnet18", weights=path)
