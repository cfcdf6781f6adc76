"""Our networks compute what torchvision's, timm's and keras.applications' compute.

Their weights, random and by formula, go through the converters; then every convolution, batch
normalisation and dense layer of ours must give what theirs gives. Against torch this holds with
the real peer where it is installed (marker `peers`), and everywhere against values recorded from it
(tests/make_goldens.py). AlexNet, ZFNet and GoogLeNet as published have no peer in any library;
theirs are written down from the papers (tests/torch_peers.py), under our layers' names.
"""

import json
from pathlib import Path

import formula
import keras
import numpy as np
import pytest

from keras_zoo import build, card, convert

BOUND = 1e-4
GOLDENS = json.loads((Path(__file__).parent / "goldens" / "torch.json").read_text())
FROM_PAPERS = ("alexnet", "zfnet", "googlenet")
OUR_NAMES = convert.Counterpart(
    lambda model: {layer.name: layer.name for layer in model.layers}, heads={}
)
TORCH_PEERS = {**convert.TORCH, **dict.fromkeys(FROM_PAPERS, OUR_NAMES)}
KERAS_PEERS = {
    "vgg16": keras.applications.VGG16,
    "vgg19": keras.applications.VGG19,
    "inception_v3": keras.applications.InceptionV3,
    "resnet50_v1": keras.applications.ResNet50,
    "resnet101_v1": keras.applications.ResNet101,
    "resnet152_v1": keras.applications.ResNet152,
    "resnet50_v2": keras.applications.ResNet50V2,
    "resnet101_v2": keras.applications.ResNet101V2,
    "resnet152_v2": keras.applications.ResNet152V2,
}


@pytest.fixture(autouse=True)
def _forget_models():
    yield
    keras.utils.clear_session()


@pytest.fixture(autouse=True)
def _papers_have_counterparts(monkeypatch):
    monkeypatch.setattr(convert, "TORCH", TORCH_PEERS)


def small(name: str, px: int, **options) -> keras.Model:
    return build(name, num_classes=10, input_shape=(px, px, 3), **options)


def weighted_layers(model: keras.Model) -> list[keras.layers.Layer]:
    kinds = keras.layers.Conv2D | keras.layers.BatchNormalization | keras.layers.Dense
    return [layer for layer in model.layers if isinstance(layer, kinds)]


def layer_outputs(model: keras.Model, layers, images: np.ndarray) -> dict[str, np.ndarray]:
    probe = keras.Model(model.input, {layer.name: layer.output for layer in layers})
    return {
        name: keras.ops.convert_to_numpy(array)
        for name, array in probe(images, training=False).items()
    }


def distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


def rectified(layer: keras.layers.Layer) -> bool:
    return getattr(layer, "activation", None) is keras.activations.relu


def torch_state(model: keras.Model, name: str) -> dict[str, np.ndarray]:
    """The peer's state by formula, its names and shapes worked out from our layers."""
    names = convert.TORCH[name].layer_names(model)
    state = {}
    for layer in weighted_layers(model):
        for variable in layer.weights:
            shape = tuple(variable.shape)
            order = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[len(shape)]
            key = convert._torch_key(names[layer.name], variable.name)
            state[key] = formula.weight(key, tuple(shape[axis] for axis in order))
    return state


@pytest.mark.parametrize("name", GOLDENS)
def test_equals_what_was_recorded_from_the_torch_peer(name):
    golden = GOLDENS[name]
    model = small(name, golden["px"], aux_heads=name.startswith("googlenet"))
    state = torch_state(model, name)
    assert formula.digest({key: value.shape for key, value in state.items()}) == golden["state"]
    convert.load_torch_state(model, name, state)
    names = convert.TORCH[name].layer_names(model)
    recorded = [
        layer
        for layer in weighted_layers(model)
        if names[layer.name] in golden["layers"] or layer.name == "logits"
    ]
    images = formula.images(golden["px"], spread=golden["spread"])
    outputs = layer_outputs(model, recorded, images)
    logits = np.array(golden["logits"])
    assert np.abs(outputs.pop("logits").ravel() - logits).max() < BOUND * np.abs(logits).max()
    assert len(outputs) == len(golden["layers"])
    for ours, output in outputs.items():
        theirs = golden["layers"][names[ours]]
        drawn = output.ravel()[formula.places(names[ours], output.size)]
        assert np.abs(drawn - theirs["values"]).max() < BOUND * theirs["largest"], ours


@pytest.mark.parametrize("name", [name for name in GOLDENS if "aux" in GOLDENS[name]])
def test_auxiliary_heads_equal_what_was_recorded_from_the_torch_peer(name):
    golden = GOLDENS[name]["aux"]
    model = small(name, golden["px"], aux_heads=True)
    convert.load_torch_state(model, name, torch_state(model, name))
    names = convert.TORCH[name].layer_names(model)
    heads = [layer for layer in model.layers if names[layer.name] in golden["logits"]]
    images = formula.images(golden["px"], spread=GOLDENS[name]["spread"])
    outputs = layer_outputs(model, heads, images)
    assert len(outputs) == len(golden["logits"]) == len(model.output) - 1
    for ours, output in outputs.items():
        assert distance(output.ravel(), np.array(golden["logits"][names[ours]])) < BOUND


@pytest.mark.peers
@pytest.mark.parametrize("name", TORCH_PEERS)
def test_every_layer_equals_the_torch_peers(name):
    torch_peers = pytest.importorskip("torch_peers", exc_type=ImportError)
    px = 299 if name == "inception_v3" else GOLDENS[name]["px"]
    peer = torch_peers.peer(name, px)
    model = small(name, px, aux_heads=card(name).aux_heads is not None)
    convert.load_torch_state(model, name, torch_peers.state(peer))
    images = formula.images(px, spread=GOLDENS[name]["spread"])
    theirs = torch_peers.outputs(peer, images)
    names = convert.TORCH[name].layer_names(model)
    ours = layer_outputs(model, weighted_layers(model), images)
    for layer in weighted_layers(model):
        expected = theirs[names[layer.name]]
        if rectified(layer):
            expected = np.maximum(expected, 0)
        assert distance(ours[layer.name], expected) < BOUND, layer.name


@pytest.mark.peers
@pytest.mark.slow
@pytest.mark.parametrize("name", ["alexnet_owt", "vgg11", "vgg16_bn"])
def test_equals_the_unchanged_torch_peer_at_its_own_input_size(name):
    torch_peers = pytest.importorskip("torch_peers", exc_type=ImportError)
    peer = torch_peers.peer(name, 224)
    model = small(name, 224)
    convert.load_torch_state(model, name, torch_peers.state(peer))
    images = formula.images(224, batch=1)
    ours = keras.ops.convert_to_numpy(model(images, training=False))
    assert distance(ours, torch_peers.outputs(peer, images)[""]) < BOUND


@pytest.mark.parametrize("name", ["googlenet_bn", "inception_v3"])
def test_input_spec_holds_torchvisions_transform_input(name):
    pixels = np.arange(256.0)[:, None]
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    normalised = (pixels / 255 - mean) / std
    transformed = normalised * (std / 0.5) + (mean - 0.5) / 0.5
    spec = card(name).input
    np.testing.assert_allclose((pixels - spec.mean) / spec.std, transformed, atol=1e-12)


@pytest.mark.peers
@pytest.mark.parametrize("name", ["googlenet_bn", "inception_v3"])
def test_input_spec_does_what_the_peer_does_by_transform_input(name):
    torch_peers = pytest.importorskip("torch_peers", exc_type=ImportError)
    peer = torch_peers.peer(name, 107)
    peer.transform_input = True
    model = small(name, 107)
    convert.load_torch_state(model, name, torch_peers.state(peer))
    pixels = 127.5 + 127.5 * formula.uniform("images", (2, 107, 107, 3))
    spec = card(name).input
    ours = keras.ops.convert_to_numpy(model((pixels - spec.mean) / spec.std, training=False))
    by_imagenet = (pixels / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    theirs = torch_peers.outputs(peer, by_imagenet.astype("float32"))[""]
    assert distance(ours, theirs) < BOUND


def keras_peer(name: str, px: int) -> keras.Model:
    peer = KERAS_PEERS[name](
        weights=None, classes=10, input_shape=(px, px, 3), classifier_activation=None
    )
    for layer in peer.layers:
        for variable in layer.weights:
            variable.assign(formula.weight(f"{layer.name}/{variable.name}", tuple(variable.shape)))
    return peer


def keras_state(peer: keras.Model) -> dict[str, np.ndarray]:
    return {
        f"{layer.name}/{variable.name}": variable.numpy()
        for layer in peer.layers
        for variable in layer.weights
    }


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if "101" in name or "152" in name else [])
        for name in KERAS_PEERS
    ],
)
def test_every_layer_equals_the_keras_peers(name):
    px = 107 if name == "inception_v3" else 64
    peer = keras_peer(name, px)
    model = small(name, px)
    convert.load_keras_state(model, name, keras_state(peer))
    names = convert.KERAS[name].layer_names(model)
    numbered = {}
    for kind in ("conv2d", "batch_normalization"):
        found = [layer.name for layer in peer.layers if layer.name.startswith(kind)]
        found.sort(key=lambda other: int("0" + other[len(kind) + 1 :]))
        numbered |= {f"{kind}_{rank}": other for rank, other in enumerate(found, start=1)}
    theirs = layer_outputs(peer, weighted_layers(peer), formula.images(px))
    ours = layer_outputs(model, weighted_layers(model), formula.images(px))
    for layer in weighted_layers(model):
        counterpart = numbered.get(names[layer.name], names[layer.name])
        output = ours[layer.name]
        if rectified(peer.get_layer(counterpart)):
            output = np.maximum(output, 0)
        assert distance(output, theirs[counterpart]) < BOUND, layer.name
