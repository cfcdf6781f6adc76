"""The SavedModel: `tf.saved_model.load` and TensorFlow Serving need nothing else.

The preprocessing inside is that of evaluation, the very functions.

Signatures, each taking and giving named tensors; `classes` (string), `class_ids` (int32) and
`probabilities` (float32) are `(B, top_k)`, the most probable first:

serving_default  `image_bytes`, string `(B,)`: JPEG, PNG, GIF, BMP or WebP files of any size
                 -> `classes`, `class_ids`, `probabilities`
image_tensor     `images`, uint8 RGB `(B, H, W, 3)`, of any one size -> the same
features         `image_bytes` -> `features`, float32 `(B, D)`: what the classifier sees

Attributes, for a server that decodes each image on its own and batches only the network:

preprocess        image_bytes, a string -> uint8 `(S, S, C)`
preprocess_image  image, uint8 RGB `(H, W, 3)` -> uint8 `(S, S, C)`
classify          pixels, uint8 `(B, S, S, C)` -> probabilities, float32 `(B, num_classes)`
embed             pixels -> features, float32 `(B, D)`
explain           pixels, class_ids, int32 `(B,)` -> `grad_cam`, float32 `(B, h, w)` in [0, 1]
labels            -> the names of the classes, string `(num_classes,)`
card              -> the model card, a string of JSON
"""

import json
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_zoo import InputSpec
from pipelines.data.images import central_square, evaluation_image, with_channels
from pipelines.exporting.folding import fold_batch_norm
from pipelines.exporting.grad_cam import grad_cam

Answer = dict[str, tf.Tensor]


def for_inference(model: keras.Model) -> keras.Model:
    """An `image_classifier` without what only training needs: uint8 images -> logits."""
    *_, normalise, network = model.layers
    return keras.Model(model.input, fold_batch_norm(network)(normalise.output), name=model.name)


def with_features(model: keras.Model) -> keras.Model:
    """An `image_classifier` that gives the input of its last layer, `(B, D)`, before the logits."""
    *_, normalise, network = model.layers
    both = keras.Model(network.input, [network.get_layer("logits").input, network.output])
    return keras.Model(model.input, both(normalise.output))


def save(
    model: keras.Model,
    spec: InputSpec,
    class_names: list[str],
    top_k: int,
    card: dict[str, Any],
    folder: Path,
) -> None:
    """Writes the SavedModel of a model that `for_inference` gave."""
    image_bytes = tf.TensorSpec((None,), tf.string, name="image_bytes")
    images = tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")
    pixels = tf.TensorSpec((None, *spec.shape), tf.uint8, name="pixels")
    square = tf.TensorSpec(spec.shape, tf.uint8)
    outputs = with_features(model)

    @tf.function(input_signature=[tf.TensorSpec((), tf.string, name="image_bytes")])
    def preprocess(image_bytes: tf.Tensor) -> tf.Tensor:
        return evaluation_image(image_bytes, spec)

    @tf.function(input_signature=[tf.TensorSpec((None, None, 3), tf.uint8, name="image")])
    def preprocess_image(image: tf.Tensor) -> tf.Tensor:
        return central_square(with_channels(image, spec.num_channels), spec)

    @tf.function(input_signature=[pixels])
    def classify(pixels: tf.Tensor) -> tf.Tensor:
        return tf.nn.softmax(outputs(pixels, training=False)[1])

    @tf.function(input_signature=[pixels])
    def embed(pixels: tf.Tensor) -> tf.Tensor:
        return outputs(pixels, training=False)[0]

    @tf.function(input_signature=[pixels, tf.TensorSpec((None,), tf.int32, name="class_ids")])
    def explain(pixels: tf.Tensor, class_ids: tf.Tensor) -> tf.Tensor:
        return grad_cam(model, pixels, class_ids)

    @tf.function(input_signature=[])
    def labels() -> tf.Tensor:
        return tf.constant(class_names)

    @tf.function(input_signature=[])
    def card_text() -> tf.Tensor:
        return tf.constant(json.dumps(card))

    def answer(pixels: tf.Tensor) -> Answer:
        values, ids = tf.math.top_k(classify(pixels), top_k)
        return {"classes": tf.gather(labels(), ids), "class_ids": ids, "probabilities": values}

    @tf.function(input_signature=[image_bytes])
    def serving_default(image_bytes: tf.Tensor) -> Answer:
        return answer(tf.map_fn(preprocess, image_bytes, fn_output_signature=square))

    @tf.function(input_signature=[images])
    def image_tensor(images: tf.Tensor) -> Answer:
        return answer(tf.map_fn(preprocess_image, images, fn_output_signature=square))

    @tf.function(input_signature=[image_bytes])
    def features(image_bytes: tf.Tensor) -> Answer:
        squares = tf.map_fn(preprocess, image_bytes, fn_output_signature=square)
        return {"features": embed(squares)}

    module = tf.Module()
    # A plain module, which stores each weight once; Keras's own export stores them twice.
    module.weights = [variable.value for variable in outputs.variables]
    module.preprocess, module.preprocess_image = preprocess, preprocess_image
    module.classify, module.embed, module.explain = classify, embed, explain
    module.labels, module.card = labels, card_text
    signatures = {
        function.python_function.__name__: function
        for function in (serving_default, image_tensor, features)
    }
    tf.saved_model.save(module, folder, signatures=signatures)
