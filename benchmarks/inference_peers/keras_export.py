"""What Keras's own `model.export` writes: the folder of a SavedModel."""

import tensorflow as tf
from measure import model, serve

signature = tf.saved_model.load(model()).signatures["serving_default"]
((given, _),) = signature.structured_input_signature[1].items()
(answer,) = signature.structured_outputs
serve(lambda images: signature(**{given: tf.constant(images)})[answer].numpy())
