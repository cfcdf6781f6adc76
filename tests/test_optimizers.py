"""Updates and losses against numpy: decay of both kinds, rates of depths, LAMB, label rules."""

import keras
import numpy as np
import pytest
from keras import layers

from pipelines.command import parse
from pipelines.config import TrainConfig
from pipelines.training.losses import example_losses
from pipelines.training.optimizers import optimizer

STEPS_PER_EPOCH = 10
RATE = 0.05
OPTIMIZERS = {
    "sgd with l2": "--optimizer.l2=0.01 --optimizer.nesterov=false",
    "sgd with decay": "--optimizer.weight_decay=0.01",
    "rmsprop with l2": "--optimizer.name=rmsprop --optimizer.l2=0.01 --optimizer.epsilon=1.0",
    "rmsprop with decay": "--optimizer.name=rmsprop --optimizer.weight_decay=0.01",
    "lamb": "--optimizer.name=lamb --optimizer.weight_decay=0.01 --optimizer.epsilon=1e-6",
}


def configured(settings, *more):
    fixed = "--optimizer.weight_decay=0 --schedule.name=constant --schedule.warmup_epochs=0"
    rate = f"--optimizer.base_lr={RATE} --optimizer.base_batch_size=null"
    return parse(TrainConfig, ["d", *f"{fixed} {rate} {settings}".split(), *more])


def small_network():
    """Two depths and a head, in the names that networks have."""
    image = keras.Input((4, 4, 2))
    x = layers.Conv2D(3, 3, name="stem_conv")(image)
    x = layers.BatchNormalization(name="stem_bn")(x)
    x = layers.Conv2D(3, 1, name="stage1_block1_conv")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(2, name="logits")(x))


def steps(config, gradients):
    """The variables' values after each step, from the same start whatever the config."""
    model = small_network()
    variables = model.trainable_variables
    draw = np.random.default_rng(0)
    for variable in variables:
        variable.assign(draw.normal(size=variable.shape))
    values = [{v.path: v.numpy() for v in variables}]
    own = optimizer(config, STEPS_PER_EPOCH)
    for gradient in gradients:
        own.apply([keras.ops.convert_to_tensor(gradient[v.path]) for v in variables], variables)
        values.append({v.path: v.numpy() for v in variables})
    return values


def random_gradients(number):
    draw = np.random.default_rng(1)
    shapes = {v.path: v.shape for v in small_network().trainable_variables}
    return [
        {path: draw.normal(size=shape).astype(np.float32) for path, shape in shapes.items()}
        for _ in range(number)
    ]


def by_sgd(w, gradients, l2, decay, nesterov):
    velocity = np.zeros_like(w)
    for gradient in gradients:
        gradient = gradient + l2 * w
        velocity = 0.9 * velocity - RATE * gradient
        step = 0.9 * velocity - RATE * gradient if nesterov else velocity
        w = w - RATE * decay * w + step
    return w


def by_rmsprop(w, gradients, l2, decay, epsilon):
    square, velocity = np.zeros_like(w), np.zeros_like(w)
    for gradient in gradients:
        gradient = gradient + l2 * w
        square = 0.9 * square + 0.1 * gradient**2
        velocity = 0.9 * velocity + RATE * gradient / np.sqrt(square + epsilon)
        w = w - RATE * decay * w - velocity
    return w


def by_lamb(w, gradients, decay):
    mean, square = np.zeros_like(w), np.zeros_like(w)
    for number, gradient in enumerate(gradients, start=1):
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        step = mean / (1 - 0.9**number) / (np.sqrt(square / (1 - 0.999**number)) + 1e-6)
        if decay is not None:
            step = step + decay * w
            step = step * np.linalg.norm(w) / np.linalg.norm(step)
        w = w - RATE * step
    return w


BY_NUMPY = {
    "sgd with l2": lambda w, g, kernel: by_sgd(w, g, 0.01 * kernel, 0, nesterov=False),
    "sgd with decay": lambda w, g, kernel: by_sgd(w, g, 0, 0.01 * kernel, nesterov=True),
    "rmsprop with l2": lambda w, g, kernel: by_rmsprop(w, g, 0.01 * kernel, 0, 1.0),
    "rmsprop with decay": lambda w, g, kernel: by_rmsprop(w, g, 0, 0.01 * kernel, 1e-7),
    "lamb": lambda w, g, kernel: by_lamb(w, g, 0.01 if kernel else None),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_five_steps_are_numpys_and_only_kernels_decay(name):
    gradients = random_gradients(5)
    values = steps(configured(OPTIMIZERS[name]), gradients)
    for path, start in values[0].items():
        kernel = path.endswith("kernel")
        expected = BY_NUMPY[name](
            np.float64(start), [np.float64(gradient[path]) for gradient in gradients], kernel
        )
        np.testing.assert_allclose(values[-1][path], expected, rtol=2e-4, atol=2e-5, err_msg=path)


def test_without_decay_lamb_moves_a_kernel_as_keras_own_does():
    gradients = random_gradients(3)
    settings = "--optimizer.name=lamb --optimizer.epsilon=1e-6"
    values = steps(configured(settings), gradients)
    path = "stem_conv/kernel"
    theirs = keras.Variable(values[0][path])
    own = keras.optimizers.Lamb(RATE, epsilon=1e-6)
    for gradient in gradients:
        own.apply([keras.ops.convert_to_tensor(gradient[path])], [theirs])
    np.testing.assert_allclose(values[-1][path], theirs.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_update_of_a_depth_is_its_factor_times_the_plain_one(name):
    gradients = random_gradients(1)
    plain = steps(configured(OPTIMIZERS[name]), gradients)
    slowed = steps(configured(OPTIMIZERS[name], "--fine_tuning.depth_factor", "0.5"), gradients)
    factors = {"stem": 0.25, "stage1": 0.5, "logits": 1.0}
    for path, start in plain[0].items():
        factor = factors[path.split("_")[0].split("/")[0]]
        np.testing.assert_allclose(
            slowed[1][path] - start, factor * (plain[1][path] - start), rtol=1e-4, atol=3e-7
        )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_until_the_head_is_warm_nothing_else_moves(name):
    gradients = random_gradients(STEPS_PER_EPOCH + 1)
    values = steps(configured(OPTIMIZERS[name], "--fine_tuning.head_only_epochs", "1"), gradients)
    for path, start in values[0].items():
        held = not path.startswith("logits")
        assert np.array_equal(values[STEPS_PER_EPOCH][path], start) == held, path
        assert not np.array_equal(values[STEPS_PER_EPOCH + 1][path], start), path


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def random_batch():
    draw = np.random.default_rng(2)
    labels = np.zeros((6, 5), np.float32)
    labels[np.arange(6), [0, 1, 2, 3, 4, 0]] = [1, 0.7, 0.5, 0.81, 0.2, 0.9]
    labels[np.arange(6), [1, 2, 3, 4, 0, 1]] += [0, 0.3, 0.5, 0.19, 0.8, 0.1]
    return labels, draw.normal(size=(3, 6, 5)).astype(np.float32)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_softmax_loss_is_the_cross_entropy_with_the_smoothed_label(smoothing):
    labels, (logits, *_) = random_batch()
    config = configured(f"--label_smoothing={smoothing}")
    target = (1 - smoothing) * labels + smoothing / 5
    expected = -(target * np.log(softmax(logits))).sum(axis=1)
    np.testing.assert_allclose(example_losses(config)(labels, logits), expected, rtol=1e-5)


def test_the_binary_loss_calls_classes_with_more_than_a_fifth_of_the_label_present():
    labels, (logits, *_) = random_batch()
    config = configured("--loss=binary --label_smoothing=0")
    target = np.zeros((6, 5))
    for row, present in enumerate([[0], [1, 2], [2, 3], [3], [0], [0]]):
        target[row, present] = 1
    probability = 1 / (1 + np.exp(-np.float64(logits)))
    every = -(target * np.log(probability) + (1 - target) * np.log(1 - probability))
    np.testing.assert_allclose(example_losses(config)(labels, logits), every.mean(axis=1), 1e-5)


def test_the_losses_of_auxiliary_heads_are_added_at_their_weights():
    labels, (logits, *aux) = random_batch()
    alone = example_losses(configured("--label_smoothing=0.1"))
    config = configured("--network=googlenet_bn --label_smoothing=0.1 --aux_weights=[0.3,0.2]")
    expected = alone(labels, logits) + 0.3 * alone(labels, aux[0]) + 0.2 * alone(labels, aux[1])
    np.testing.assert_allclose(example_losses(config)(labels, [logits, *aux]), expected, rtol=1e-6)
