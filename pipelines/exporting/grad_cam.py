"""Where a network looked: Grad-CAM.

Selvaraju, Cogswell, Das, Vedantam, Parikh, Batra, "Grad-CAM: Visual Explanations from Deep Networks
via Gradient-based Localization", ICCV 2017 (arXiv:1610.02391), section 3.

Deviations:
- The feature map is the one that the network's head takes: in VGG and AlexNet the last pooled one,
  where the paper takes the convolution before it.
- Each map is divided by its largest value, since only where it is high is looked at.
"""

import keras
import tensorflow as tf
from keras import KerasTensor


def grad_cam(model: keras.Model, pixels: tf.Tensor, class_ids: tf.Tensor) -> tf.Tensor:
    """How much each part of an image speaks for a class.

    Args:
        model: an `image_classifier` without auxiliary heads.
        pixels: uint8 `(B, S, S, C)`.
        class_ids: int32 `(B,)`, the class to ask about in each image.

    Returns:
        float32 `(B, h, w)` in [0, 1], of the size of the last feature map. The largest value of
        each map is 1; a map is all zeros where nothing speaks for the class.
    """
    body, head = split_at_head(model)
    features = body(pixels, training=False)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(features)
        logits = head(features, training=False)
        score = tf.gather(logits, class_ids, axis=1, batch_dims=1)
    # Each image's score depends on its own features alone.
    weights = tf.reduce_mean(tape.gradient(score, features), axis=(1, 2))
    maps = tf.nn.relu(tf.einsum("bhwc,bc->bhw", features, weights))
    return tf.math.divide_no_nan(maps, tf.reduce_max(maps, axis=(1, 2), keepdims=True))


def split_at_head(model: keras.Model) -> tuple[keras.Model, keras.Model]:
    """An `image_classifier` as two models that share its weights.

    Returns:
        The body, uint8 `(B, S, S, C)` -> the last feature map, float32 `(B, h, w, F)`; and the
        head, from there to the logits, float32 `(B, num_classes)`.
    """
    *_, preparation, network = model.layers
    features = head_input(network)
    body = keras.Model(network.input, features)
    return (
        keras.Model(model.input, body(preparation.output)),
        keras.Model(features, network.output),
    )


def head_input(network: keras.Model) -> KerasTensor:
    """The last feature map of a network, `(h, w, F)`: its head is what follows, a chain."""
    return next(layer.input for layer in reversed(network.layers) if len(layer.input.shape) == 4)
