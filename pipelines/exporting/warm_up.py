"""Requests that TensorFlow Serving sends itself before it says that it is ready.

`assets.extra/tf_serving_warmup_requests` is a TFRecord file of `PredictionLog` messages
(tensorflow_serving/apis/prediction_log.proto). They are written here field by field: the package
that declares them, tensorflow-serving-api, would bring a second TensorFlow.
"""

from pathlib import Path

import numpy as np
import tensorflow as tf

WARM_UP = Path("assets.extra") / "tf_serving_warmup_requests"
# Numbers of the fields on the way from a PredictionLog to its request, and within that.
PREDICT_LOG, REQUEST = 6, 1
MODEL_SPEC, INPUTS = 1, 2
SPEC_NAME, SPEC_SIGNATURE_NAME = 1, 3
MAP_KEY, MAP_VALUE = 1, 2


def write_warm_up(version: Path, model: str, image: bytes) -> None:
    """Writes a request for each signature.

    Args:
        version: the folder of an exported model.
        model: its name.
        image: an encoded photograph.
    """
    inputs = {
        "serving_default": ("image_bytes", tf.constant([image])),
        "image_tensor": ("images", tf.zeros((1, 256, 256, 3), tf.uint8)),
        "features": ("image_bytes", tf.constant([image])),
    }
    (version / WARM_UP).parent.mkdir()
    with tf.io.TFRecordWriter(str(version / WARM_UP)) as file:
        for signature_name, (name, tensor) in inputs.items():
            file.write(_prediction_log(model, signature_name, name, tensor.numpy()))


def _prediction_log(model: str, signature_name: str, name: str, value: np.ndarray) -> bytes:
    """A serialized `PredictionLog` of one request with one input."""
    tensor = tf.make_tensor_proto(value).SerializeToString()
    spec = _field(SPEC_NAME, model.encode()) + _field(SPEC_SIGNATURE_NAME, signature_name.encode())
    entry = _field(MAP_KEY, name.encode()) + _field(MAP_VALUE, tensor)
    request = _field(MODEL_SPEC, spec) + _field(INPUTS, entry)
    return _field(PREDICT_LOG, _field(REQUEST, request))


def _field(number: int, payload: bytes) -> bytes:
    """A field of bytes, text or a message: its number and kind, its length, itself."""
    length_delimited = 2
    return bytes([number << 3 | length_delimited]) + _varint(len(payload)) + payload


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the highest bit says that more follow."""
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])
