"""One update, against its formula."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_zoo import registry
from pipelines.command import parse
from pipelines.config import TrainConfig
from pipelines.errors import BadInput
from pipelines.training.divergence import first_not_finite
from pipelines.training.losses import example_losses
from pipelines.training.model import at_size, every_layer, image_classifier
from pipelines.training.state import State
from pipelines.training.step import TrainingStep
from pipelines.training.train import train
from tests.conftest import digits_config, numbered_config
from tests.training_scenario import SMALL_BN

BATCH = 24
SIMPLE = [
    f"--global_batch_size={BATCH}",
    "--schedule.warmup_epochs=0",
    "--optimizer.momentum=0",
    "--optimizer.nesterov=false",
    "--optimizer.weight_decay=0",
]


@pytest.fixture(autouse=True)
def _small_network(monkeypatch):
    monkeypatch.setitem(registry.CARDS, SMALL_BN.name, SMALL_BN)


def digits_batch():
    """Noise and labels: uint8 `(24, 32, 32, 1)` and one-hot float32 `(24, 10)`."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (BATCH, 32, 32, 1), np.uint8)
    return tf.constant(images), tf.one_hot(random.integers(0, 10, BATCH), 10)


def trainee(tmp_path, *overrides):
    config = digits_config(tmp_path, tmp_path / "run", *SIMPLE, *overrides)
    keras.utils.set_random_seed(0)
    state = State(config, 10, None, steps_per_epoch=10)
    return config, state, TrainingStep(state, config, {32: state.model})


def weights(state):
    return [variable.numpy() for variable in state.model.weights]


def gradient(config, model, images, labels):
    """Of the mean loss over the batch, as Keras's model and TensorFlow's tape give it."""
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(example_losses(config)(labels, model(images, training=True)))
    variables = [variable.value for variable in model.trainable_variables]
    return float(loss), [g.numpy() for g in tape.gradient(loss, variables)]


def test_an_update_is_the_gradient_of_the_mean_loss_times_the_rate(tmp_path):
    config, state, step = trainee(tmp_path)
    before = weights(state)
    loss, gradients = gradient(config, state.model, *digits_batch())
    totals = step(*digits_batch(), stop=False)
    assert totals.loss == pytest.approx(loss, rel=1e-6)
    for old, new, slope in zip(before, weights(state), gradients, strict=True):
        np.testing.assert_allclose(new, old - config.peak_lr * slope, atol=1e-7)


@pytest.mark.parametrize("clip_norm", [0.1, 1000.0])
def test_a_gradient_longer_than_the_clip_norm_is_shortened_to_it(tmp_path, clip_norm):
    config, state, step = trainee(tmp_path, f"--optimizer.clip_norm={clip_norm}")
    before = weights(state)
    _, gradients = gradient(config, state.model, *digits_batch())
    norm = np.sqrt(sum((slope**2).sum() for slope in gradients))
    assert 0.1 < norm < 1000
    step(*digits_batch(), stop=False)
    share = config.peak_lr * min(1, clip_norm / norm)
    for old, new, slope in zip(before, weights(state), gradients, strict=True):
        np.testing.assert_allclose(new, old - share * slope, atol=1e-7)


def test_gradients_of_parts_add_up_to_those_of_the_whole_batch(tmp_path):
    _, whole, whole_step = trainee(tmp_path)
    _, parts, parts_step = trainee(tmp_path, "--accumulation_steps=3")
    for _ in range(3):
        totals = whole_step(*digits_batch(), stop=False), parts_step(*digits_batch(), stop=False)
        assert totals[0].loss == pytest.approx(totals[1].loss, rel=1e-5)
        assert totals[0].correct == totals[1].correct
    for ours, theirs in zip(weights(parts), weights(whole), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_the_averages_follow_the_weights_and_are_what_is_evaluated(tmp_path):
    _, state, step = trainee(tmp_path, "--network=small_bn", "--ema_momentum=0.75")
    expected = weights(state)
    # 2/11, 3/12, ..., and from the 26th on the one that is asked for.
    for number in range(1, 31):
        step(*digits_batch(), stop=False)
        momentum = min(0.75, (1 + number) / (10 + number))
        pairs = zip(expected, weights(state), strict=True)
        expected = [momentum * average + (1 - momentum) * weight for average, weight in pairs]
    trained = weights(state)
    with state.evaluated():
        for given, average in zip(weights(state), expected, strict=True):
            np.testing.assert_allclose(given, average, atol=1e-5)
    for given, weight in zip(weights(state), trained, strict=True):
        np.testing.assert_array_equal(given, weight)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_layers_compute_in_less_and_weights_stay_float32(tmp_path, precision):
    _, exact, exact_step = trainee(tmp_path, "--network=small_bn")
    _, state, step = trainee(tmp_path, "--network=small_bn", f"--precision={precision}")
    stem = next(layer for layer in every_layer(state.model) if layer.name == "stage1_conv")
    assert (stem.compute_dtype, stem.variable_dtype) == (precision, "float32")
    assert keras.config.dtype_policy().name == "float32"
    for _ in range(5):
        loss, exact_loss = (s(*digits_batch(), stop=False).loss for s in (step, exact_step))
    assert loss == pytest.approx(exact_loss, rel=0.02)
    for ours, theirs in zip(weights(state), weights(exact), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=0.05)


def test_a_loss_scale_that_is_too_high_is_lowered_and_nothing_updated(tmp_path):
    _, state, step = trainee(tmp_path, "--network=small_bn", "--precision=float16")
    state.optimizer.dynamic_scale.assign(2.0**60)
    before = [variable.numpy() for variable in state.model.trainable_variables]
    assert np.isfinite(step(*digits_batch(), stop=False)).all()
    assert state.optimizer.dynamic_scale.numpy() == 2.0**59
    for old, new in zip(before, state.model.trainable_variables, strict=True):
        np.testing.assert_array_equal(new.numpy(), old)


def test_a_step_whose_loss_is_no_number_updates_nothing_and_its_layer_is_found(tmp_path):
    config, state, step = trainee(tmp_path, "--network=small_bn")
    layer = next(each for each in every_layer(state.model) if each.name == "stage2_conv")
    layer.kernel.assign(tf.fill(layer.kernel.shape, np.inf))
    before = [variable.numpy() for variable in state.model.trainable_variables]
    totals = step(*digits_batch(), stop=False)
    assert not np.isfinite(totals.loss)
    for old, new in zip(before, state.model.trainable_variables, strict=True):
        np.testing.assert_array_equal(new.numpy(), old)
    found = first_not_finite(state.model, config, *digits_batch())
    assert found == "the output of layer 'stage2_conv' is the first that is not finite"


def test_a_layer_whose_gradient_alone_is_no_number_is_found(tmp_path):
    config = digits_config(tmp_path, tmp_path / "run")
    inputs = x = keras.Input((32, 32, 1))
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(4, name="before")(x)
    x = keras.layers.Dense(4, kernel_initializer="zeros", activation=keras.ops.sqrt, name="root")(x)
    model = keras.Model(inputs, keras.layers.Dense(10, name="after")(x))
    images, labels = digits_batch()
    found = first_not_finite(model, config, tf.cast(images, tf.float32), labels)
    assert found == "backwards, the gradient of layer 'root' is the first not finite"
    model.get_layer("root").bias.assign(tf.ones(4))
    assert first_not_finite(model, config, tf.cast(images, tf.float32), labels) is None


def test_each_worker_learns_that_one_was_asked_to_stop(tmp_path):
    _, _, step = trainee(tmp_path)
    assert step(*digits_batch(), stop=False).stops == 0
    assert step(*digits_batch(), stop=True).stops == 1


def test_a_model_for_another_size_is_the_network_with_the_same_weights():
    """GoogLeNet's pooling pads by what the size leaves over."""
    config = parse(TrainConfig, ["data", "--network=googlenet_bn", "--input.size_px=64"])
    other = dataclasses.replace(config.input, size_px=47)
    model = image_classifier("googlenet_bn", config.input, 5)
    shared = at_size(model, config, 47, 5)
    fresh = image_classifier("googlenet_bn", other, 5)
    fresh.set_weights(model.get_weights())
    images = np.random.default_rng(0).integers(0, 256, (2, 47, 47, 3), np.uint8)
    np.testing.assert_allclose(shared(images), fresh(images), atol=1e-5)
    ours, theirs = ({id(v) for v in m.variables} for m in (shared, model))
    assert ours == theirs


def test_images_grow_while_the_network_trains(numbered, tmp_path):
    arguments = ["--network=small_bn", "--epochs=3", "--augment.first_size_px=32"]
    arguments += ["--train_split=train[:32]", "--validation_split=validation[:32]"]
    config = numbered_config(numbered, *arguments, "--input.size_px=96", f"--run={tmp_path}/run")
    assert [config.size_px(epoch) for epoch in range(3)] == [32, 64, 96]
    assert train(config).epochs == 3


def test_a_network_with_a_dense_layer_of_fixed_size_does_not_grow(digits, tmp_path):
    config = digits_config(digits, tmp_path / "run", "--augment.first_size_px=16")
    with pytest.raises(BadInput, match=r"dense layer \(fc1\).*leave out augment\.size_px and"):
        train(config)


@pytest.mark.parametrize("accumulation_steps", [5, 3])
def test_a_batch_that_does_not_divide_is_refused(digits, tmp_path, accumulation_steps):
    config = digits_config(digits, tmp_path / "run", f"--accumulation_steps={accumulation_steps}")
    with pytest.raises(BadInput, match=f"it is a multiple of {accumulation_steps}"):
        train(config)


def test_the_statistics_of_parts_move_as_far_as_those_of_a_whole_batch(tmp_path):
    momenta = []
    for steps in (1, 4):
        _, state, _ = trainee(tmp_path, "--network=small_bn", f"--accumulation_steps={steps}")
        layers = every_layer(state.model)
        norms = [one for one in layers if isinstance(one, keras.layers.BatchNormalization)]
        momenta.append([norm.momentum**steps for norm in norms])
    assert momenta[0]
    np.testing.assert_allclose(*momenta)


@pytest.mark.parametrize("clip_norm", [0, 1])
def test_a_gradient_of_zero_is_finite(tmp_path, clip_norm):
    """Under float16, one that is not would halve the loss scale and skip the update."""
    _, state, step = trainee(
        tmp_path, "--network=small_bn", "--precision=float16", f"--optimizer.clip_norm={clip_norm}"
    )
    share = step._kept_share([tf.zeros_like(v.value) for v in state.model.trainable_variables])
    assert np.isfinite(share)


def test_a_gradient_that_no_loss_scale_makes_finite_is_told(tmp_path):
    _, state, step = trainee(tmp_path, "--network=small_bn", "--precision=float16")
    kernel = state.model.trainable_variables[0]
    kernel.assign(tf.fill(kernel.shape, np.nan))
    state.optimizer.dynamic_scale.assign(0.5)
    assert not np.isfinite(step(*digits_batch(), stop=False).squared_norm)
