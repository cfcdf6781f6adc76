"""The zoo under Keras's JAX backend: one compiled step in bfloat16, without TensorFlow."""

import os
import sys

os.environ["KERAS_BACKEND"] = "jax"

import jax
import keras
from measure import CLASSES, MEAN, STD, batch, network, serve

import keras_zoo

keras.config.set_dtype_policy("mixed_bfloat16")
images, labels = batch()
model = keras_zoo.build(network(), num_classes=CLASSES, input_shape=images.shape[1:])
optimizer = keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True, weight_decay=5e-5)
optimizer.build(model.trainable_variables)
loss_of = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)


def loss_and_rest(trainable, rest, images, labels):
    pixels = (images.astype("float32") - keras.ops.array(MEAN)) / keras.ops.array(STD)
    logits, rest = model.stateless_call(trainable, rest, pixels, training=True)
    return loss_of(jax.nn.one_hot(labels, CLASSES), keras.ops.cast(logits, "float32")), rest


@jax.jit(donate_argnums=0)
def step(state, images, labels):
    trainable, rest, slots = state
    differentiated = jax.value_and_grad(loss_and_rest, has_aux=True)
    (loss, rest), gradients = differentiated(trainable, rest, images, labels)
    trainable, slots = optimizer.stateless_apply(slots, gradients, trainable)
    return (trainable, rest, slots), loss


def train(steps: int) -> None:
    global state
    for _ in range(steps):
        state, loss = step(state, *fed)
    loss.block_until_ready()


state = tuple(
    [variable.value for variable in variables]
    for variables in (
        model.trainable_variables,
        model.non_trainable_variables,
        optimizer.variables,
    )
)
fed = jax.device_put((images, labels))
assert "tensorflow" not in sys.modules
serve(train, lambda: jax.local_devices()[0].memory_stats()["peak_bytes_in_use"] / 2**20)
