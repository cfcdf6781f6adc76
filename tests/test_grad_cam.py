"""Grad-CAM against what it comes to in closed form."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_zoo import card
from pipelines.exporting.grad_cam import grad_cam
from pipelines.training.model import image_classifier

CLASS_IDS = np.array([4, 0, 2], np.int32)


def classifier(network, size_px):
    """A network of random weights and what it is given, uint8 `(3, S, S, C)`."""
    spec = dataclasses.replace(card(network).input, size_px=size_px)
    pixels = np.random.default_rng(1).integers(0, 256, (3, *spec.shape), np.uint8)
    return image_classifier(network, spec, num_classes=5), pixels


def feature_maps(model, pixels, layer):
    """What a layer of the network is given, `(B, h, w, F)`."""
    *_, preparation, network = model.layers
    network_input = keras.Model(model.input, preparation.output)(pixels)
    taken = network.get_layer(layer).input
    return keras.Model(network.input, taken)(network_input, training=False).numpy()


def scaled(maps):
    """`(B, h, w)` without its negative values, each divided by its largest."""
    positive = np.maximum(maps, 0)
    largest = positive.max(axis=(1, 2), keepdims=True)
    return np.divide(positive, largest, out=np.zeros_like(positive), where=largest > 0)


@pytest.mark.parametrize(
    ("network", "size_px"), [("resnet18", 96), ("googlenet", 96), ("resnet50_v2", 96)]
)
def test_behind_a_pooled_head_it_is_the_class_activation_map(network, size_px):
    """Zhou et al., CVPR 2016: the last features, weighted as the class weighs their means."""
    model, pixels = classifier(network, size_px)
    kernel = model.layers[-1].get_layer("logits").kernel.numpy()
    features = feature_maps(model, pixels, "pool")
    expected = scaled(np.einsum("bhwf,fb->bhw", features, kernel[:, CLASS_IDS]))
    assert expected.shape[1:] == (3, 3)
    maps = grad_cam(model, tf.constant(pixels), tf.constant(CLASS_IDS))
    assert maps.dtype == tf.float32
    np.testing.assert_allclose(maps, expected, atol=1e-5)


@pytest.mark.parametrize(("network", "size_px"), [("simple_cnn", 32), ("alexnet", 131)])
def test_behind_dense_layers_it_follows_those_that_are_active(network, size_px):
    model, pixels = classifier(network, size_px)
    features = feature_maps(model, pixels, "flatten")
    dense = [layer for layer in model.layers[-1].layers if isinstance(layer, layers.Dense)]
    *hidden, logits = [(layer.kernel.numpy(), layer.bias.numpy()) for layer in dense]
    values, active = features.reshape(3, -1), []
    for kernel, bias in hidden:
        values = values @ kernel + bias
        active.append(values > 0)
        values = np.maximum(values, 0)
    gradient = logits[0].T[CLASS_IDS]
    for (kernel, _), on in reversed(list(zip(hidden, active, strict=True))):
        gradient = (gradient * on) @ kernel.T
    weights = gradient.reshape(features.shape).mean(axis=(1, 2))
    expected = scaled(np.einsum("bhwf,bf->bhw", features, weights))
    assert expected.any()
    maps = grad_cam(model, tf.constant(pixels), tf.constant(CLASS_IDS))
    np.testing.assert_allclose(maps, expected, atol=1e-5)


def test_a_class_that_nothing_speaks_for_has_an_empty_map():
    model, pixels = classifier("resnet18", 64)
    logits = model.layers[-1].get_layer("logits")
    logits.kernel.assign(-tf.abs(logits.kernel))
    maps = grad_cam(model, tf.constant(pixels), tf.constant(CLASS_IDS))
    np.testing.assert_array_equal(maps, np.zeros((3, 2, 2)))
