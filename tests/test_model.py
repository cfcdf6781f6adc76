"""What is trained: normalisation and weight decay, against their formulas."""

import keras
import numpy as np
import pytest

from keras_zoo import InputSpec, card
from pipelines.command import parse
from pipelines.config import TrainConfig
from pipelines.training.model import image_classifier, num_parameters
from pipelines.training.optimizers import optimizer


@pytest.mark.parametrize("channels", ["RGB", "BGR"])
def test_the_model_normalises_as_its_input_spec_says(channels):
    mean, std = (100.0, 110.0, 120.0), (50.0, 60.0, 70.0)
    spec = InputSpec(32, channels=channels, mean=mean, std=std)
    model = image_classifier("resnet18", spec, num_classes=3)
    backbone = model.get_layer("resnet18")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    ordered = pixels[..., ::-1] if channels == "BGR" else pixels
    expected = backbone(np.float32((ordered - np.array(mean)) / np.array(std)))
    np.testing.assert_allclose(model(pixels), expected, rtol=1e-4, atol=1e-4)


def test_a_step_without_gradients_decays_kernels_alone():
    arguments = ["--network", "resnet18", "--schedule.warmup_epochs", "0"]
    config = parse(TrainConfig, ["d", *arguments, "--optimizer.weight_decay", "0.5"])
    model = image_classifier("resnet18", InputSpec(32), num_classes=3)
    sgd = optimizer(config, steps_per_epoch=10)
    variables = model.trainable_variables
    for variable in variables:
        variable.assign(keras.ops.ones_like(variable))
    sgd.apply([keras.ops.zeros_like(variable) for variable in variables], variables)
    for variable in variables:
        left = np.unique(keras.ops.convert_to_numpy(variable))
        expected = 1 - 0.5 * config.peak_lr if variable.name == "kernel" else 1
        assert left == pytest.approx([expected]), variable.path


def test_parameters_are_counted_as_the_card_counts_them_frozen_or_not():
    model = image_classifier("resnet18", InputSpec(32), num_classes=1000)
    assert num_parameters(model) == card("resnet18").parameters
    model.get_layer("resnet18").trainable = False
    assert num_parameters(model) == card("resnet18").parameters
