"""A state of another network, or an incomplete one, is one clear line and changes nothing."""

import keras
import numpy as np
import pytest

from keras_zoo import build
from keras_zoo.convert import TORCH, _torch_key, load_keras_state, load_torch_state

SHAPE = (32, 32, 3)


@pytest.fixture(autouse=True)
def _forget_models():
    yield
    keras.utils.clear_session()


def torch_state(model: keras.Model, name: str) -> dict[str, np.ndarray]:
    names = TORCH[name].layer_names(model)
    order = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}
    return {
        _torch_key(names[layer.name], variable.name): variable.numpy().transpose(
            order[len(variable.shape)]
        )
        for layer in model.layers
        for variable in layer.weights
    }


@pytest.fixture
def resnet18():
    model = build("resnet18", num_classes=10, input_shape=SHAPE)
    return model, torch_state(model, "resnet18")


def unchanged(model: keras.Model, load) -> str:
    before = [variable.numpy() for variable in model.weights]
    with pytest.raises(ValueError, match=r".") as error:
        load()
    for old, variable in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, variable.numpy())
    message = str(error.value)
    assert "\n" not in message
    return message


def test_missing_key_is_named(resnet18):
    model, state = resnet18
    del state["layer2.0.bn1.running_var"]
    message = unchanged(model, lambda: load_torch_state(model, "resnet18", state))
    assert "lacks 'layer2.0.bn1.running_var';" in message


def test_unexpected_key_is_named(resnet18):
    model, state = resnet18
    state["layer5.0.conv1.weight"] = np.zeros((1, 1, 1, 1), "float32")
    message = unchanged(model, lambda: load_torch_state(model, "resnet18", state))
    assert "unknown 'layer5.0.conv1.weight';" in message


def test_state_of_another_network_is_refused(resnet18):
    _, state = resnet18
    model = build("resnet34", num_classes=10, input_shape=SHAPE)
    message = unchanged(model, lambda: load_torch_state(model, "resnet34", state))
    assert "not the weights of resnet34" in message
    assert "may be of another network" in message


def test_classifier_of_another_width_is_refused_and_can_be_left_fresh(resnet18):
    _, state = resnet18
    model = build("resnet18", num_classes=7, input_shape=SHAPE)
    message = unchanged(model, lambda: load_torch_state(model, "resnet18", state))
    assert "fc.weight" in message
    assert "number of classes" in message
    fresh = model.get_layer("logits").kernel.numpy()
    load_torch_state(model, "resnet18", state, head=False)
    np.testing.assert_array_equal(fresh, model.get_layer("logits").kernel.numpy())
    stem = model.get_layer("stem_conv").kernel.numpy()
    np.testing.assert_array_equal(stem, state["conv1.weight"].transpose(2, 3, 1, 0))


def test_dense_layers_of_another_input_size_are_refused():
    state = torch_state(build("vgg11", num_classes=2, input_shape=(64, 64, 3)), "vgg11")
    model = build("vgg11", num_classes=2, input_shape=SHAPE)
    message = unchanged(model, lambda: load_torch_state(model, "vgg11", state))
    assert "classifier.0.weight" in message
    assert "build as published, or with include_top=False" in message
    load_torch_state(build("vgg11", input_shape=SHAPE, include_top=False), "vgg11", state)


def test_features_take_the_state_of_the_whole_network(resnet18):
    _, state = resnet18
    state["bn1.num_batches_tracked"] = np.array(7)
    model = build("resnet18", input_shape=SHAPE, include_top=False)
    load_torch_state(model, "resnet18", state)
    stem = model.get_layer("stem_conv").kernel.numpy()
    np.testing.assert_array_equal(stem, state["conv1.weight"].transpose(2, 3, 1, 0))


def test_network_without_auxiliary_heads_takes_the_state_of_one_with_them():
    full = build("googlenet_bn", num_classes=2, input_shape=SHAPE, aux_heads=True)
    state = torch_state(full, "googlenet_bn")
    model = build("googlenet_bn", num_classes=2, input_shape=SHAPE)
    load_torch_state(model, "googlenet_bn", state)
    images = np.random.default_rng(0).normal(size=(1, *SHAPE)).astype("float32")
    np.testing.assert_array_equal(full(images)["logits"].shape, model(images).shape)
    del state["aux1.fc1.weight"]
    message = unchanged(full, lambda: load_torch_state(full, "googlenet_bn", state))
    assert "lacks 'aux1.fc1.weight';" in message


def test_network_without_counterpart_is_named_with_those_that_have_one(resnet18):
    model, _ = resnet18
    with pytest.raises(
        ValueError, match="torchvision or timm has no 'alexnet'; it has alexnet_owt"
    ):
        load_torch_state(model, "alexnet", {})
    with pytest.raises(ValueError, match=r"keras.applications has no 'resnet18'; it has vgg16"):
        load_keras_state(model, "resnet18", {})


def test_keras_classifier_is_known_by_its_older_name():
    model = build("resnet50_v2", num_classes=2, input_shape=SHAPE)
    peer = keras.applications.ResNet50V2(weights=None, classes=2, input_shape=SHAPE)
    state = {
        f"{layer.name}/{variable.name}".replace("predictions/", "probs/"): variable.numpy()
        for layer in peer.layers
        for variable in layer.weights
    }
    load_keras_state(model, "resnet50_v2", state)
    np.testing.assert_array_equal(model.get_layer("logits").kernel.numpy(), state["probs/kernel"])
