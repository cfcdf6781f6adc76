"""A model whose answer is a formula: how red, green and blue the middle of a picture is.

A SavedModel with the functions and signatures of an exported one; what it says of a picture can be
computed without it. Where it saw a colour is where there is much of it.
"""

from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_zoo import InputSpec
from pipelines.data.images import central_square, evaluation_image

SPEC = InputSpec(size_px=8, crop_fraction=0.5)
COLOURS = ("red", "green", "blue")


def write(version: Path, labels: tuple[str, ...] = COLOURS, work: int = 0) -> Path:
    """Writes a version.

    Args:
        version: `<models>/<name>/<number>`.
        labels: what the answers are called, in the order red, green, blue.
        work: matrix products that an answer costs for nothing.
    """
    names = tf.constant(labels)
    images = tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")
    encoded = tf.TensorSpec((None,), tf.string, name="image_bytes")
    batch = tf.TensorSpec((None, *SPEC.shape), tf.uint8, name="pixels")
    module = tf.Module()

    def preprocess(image_bytes: tf.Tensor) -> tf.Tensor:
        return evaluation_image(image_bytes, SPEC)

    def preprocess_image(image: tf.Tensor) -> tf.Tensor:
        return central_square(image, SPEC)

    def embed(pixels: tf.Tensor) -> tf.Tensor:
        wasted = tf.ones((256, 256))
        for _ in tf.range(work * tf.shape(pixels)[0]):
            wasted = tf.tanh(wasted @ wasted)
        mean = tf.reduce_mean(tf.cast(pixels, tf.float32), axis=(1, 2)) / 255
        return mean + 0 * wasted[0, 0]

    def classify(pixels: tf.Tensor) -> tf.Tensor:
        return tf.nn.softmax(10 * embed(pixels))

    def explain(pixels: tf.Tensor, class_ids: tf.Tensor) -> tf.Tensor:
        return tf.gather(tf.cast(pixels, tf.float32) / 255, class_ids, axis=3, batch_dims=1)

    def answer(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        values, ids = tf.math.top_k(classify(pixels), 2)
        return {"classes": tf.gather(names, ids), "class_ids": ids, "probabilities": values}

    def squares(items: tf.Tensor, each) -> tf.Tensor:
        return tf.map_fn(each, items, fn_output_signature=tf.TensorSpec(SPEC.shape, tf.uint8))

    module.preprocess = tf.function(preprocess, [tf.TensorSpec((), tf.string)])
    module.preprocess_image = tf.function(
        preprocess_image, [tf.TensorSpec((None, None, 3), tf.uint8)]
    )
    module.embed = tf.function(embed, [batch])
    module.classify = tf.function(classify, [batch])
    module.explain = tf.function(explain, [batch, tf.TensorSpec((None,), tf.int32)])
    module.labels = tf.function(lambda: names, [])
    signatures = {
        "serving_default": tf.function(
            lambda image_bytes: answer(squares(image_bytes, preprocess)), [encoded]
        ),
        "image_tensor": tf.function(
            lambda images: answer(squares(images, preprocess_image)), [images]
        ),
        "features": tf.function(
            lambda image_bytes: {"features": embed(squares(image_bytes, preprocess))}, [encoded]
        ),
    }
    partial = version.with_name(f".partial-{version.name}")
    tf.saved_model.save(module, partial, signatures=signatures)
    partial.rename(version)
    return version


def probabilities(rgb: tuple[int, int, int]) -> np.ndarray:
    """The answer to a picture of one colour, by the order of the classes."""
    scores = np.exp(10 * np.array(rgb) / 255)
    return scores / scores.sum()
