"""Exported models, loaded and callable with what a JSON request holds."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.json_format import MessageToDict
from tensorflow.core.protobuf import saved_model_pb2

from pipelines.data.images import hush_transposing
from pipelines.errors import BadInput
from pipelines.exporting.versions import latest_version


class ServedModel:
    """The latest version of one exported model.

    Args:
        folder: `<models>/<name>`.
        version: `<folder>/<number>`, the version to load.
    """

    def __init__(self, folder: Path, version: Path) -> None:
        self.name = folder.name
        self.version = version.name
        self._signatures = tf.saved_model.load(version).signatures
        graph = saved_model_pb2.SavedModel.FromString((version / "saved_model.pb").read_bytes())
        self._definitions = {
            name: MessageToDict(definition, preserving_proto_field_name=True)
            for name, definition in graph.meta_graphs[0].signature_def.items()
        }

    def status(self) -> dict[str, Any]:
        """What TensorFlow Serving answers to `GET /v1/models/NAME`."""
        status = {"error_code": "OK", "error_message": ""}
        row = {"version": self.version, "state": "AVAILABLE", "status": status}
        return {"model_version_status": [row]}

    def metadata(self) -> dict[str, Any]:
        """What TensorFlow Serving answers to `GET /v1/models/NAME/metadata`."""
        return {
            "model_spec": {"name": self.name, "signature_name": "", "version": self.version},
            "metadata": {"signature_def": {"signature_def": self._definitions}},
        }

    def predict(self, instances: list[Any], signature_name: str) -> list[dict[str, Any]]:
        """Answers a request in TensorFlow Serving's row format, one prediction an instance.

        Raises:
            BadInput: an unknown signature, or an instance that it cannot take; the message names
                the instance by its number, from 0.
        """
        if signature_name not in self._signatures:
            raise BadInput(
                f"unknown signature {signature_name!r}; {self.name} has {list(self._signatures)}"
            )
        signature = self._signatures[signature_name]
        (name, spec), *_ = signature.structured_input_signature[1].items()
        inputs = _to_array(instances, name, spec)
        try:
            outputs = signature(**{name: tf.constant(inputs, spec.dtype)})
        except tf.errors.InvalidArgumentError as error:
            raise BadInput(_name_the_bad_one(signature, name, inputs)) from error
        columns = {key: _to_json(value.numpy()) for key, value in sorted(outputs.items())}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def load_models(folder: Path) -> dict[str, ServedModel]:
    """Loads the latest version of every model in a folder.

    Raises:
        BadInput: there is none.
    """
    hush_transposing()
    paths = sorted(path for path in folder.glob("*") if path.is_dir())
    models = {path.name: _load(path, v) for path in paths if (v := latest_version(path))}
    if latest_version(folder):
        raise BadInput(
            f"{str(folder)!r} is one model; give the folder above: {str(folder.parent)!r}"
        )
    if not models:
        raise BadInput(
            f"no exported model in {str(folder)!r}; "
            "python -m pipelines.export RUN --out saved_models/NAME writes one"
        )
    return models


def _load(folder: Path, version: Path) -> ServedModel:
    try:
        return ServedModel(folder, version)
    except (OSError, tf.errors.OpError) as error:
        reason = " ".join(str(error).split())
        raise BadInput(f"cannot load {str(version)!r}: {reason}; remove it") from error


def _to_array(instances: list[Any], name: str, spec: tf.TensorSpec) -> np.ndarray | list[bytes]:
    """The instances as one batch: bytes from `{"b64": ...}`, or numbers from nested lists."""
    values = [
        instance[name] if isinstance(instance, dict) and name in instance else instance
        for instance in instances
    ]
    if spec.dtype == tf.string:
        return [_to_bytes(value, index) for index, value in enumerate(values)]
    try:
        array = np.asarray(values, spec.dtype.as_numpy_dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadInput(f"instances are not equally nested lists of numbers: {error}") from error
    if not spec.shape.is_compatible_with(array.shape):
        raise BadInput(f"instances have the shape {array.shape}; {name} takes {spec.shape}")
    return array


def _to_bytes(value: Any, index: int) -> bytes:
    if not isinstance(value, dict) or not isinstance(value.get("b64"), str):
        raise BadInput(f'instance {index} is not {{"b64": "<base64 of an image file>"}}')
    try:
        return base64.b64decode(value["b64"], validate=True)
    except ValueError as error:
        raise BadInput(f"instance {index} is not valid base64: {error}") from error


def _name_the_bad_one(signature: Any, name: str, inputs: list[Any]) -> str:
    """Asks for each instance alone, to find the first that the model refuses."""
    for index, value in enumerate(inputs):
        try:
            signature(**{name: tf.constant([value])})
        except tf.errors.InvalidArgumentError:
            return f"instance {index} is not an image (JPEG, PNG, GIF, BMP or WebP)"
    return "the instances cannot be put into one batch"


def _to_json(array: np.ndarray) -> list[Any]:
    if array.dtype == object:
        array = np.vectorize(lambda text: text.decode("utf-8"), otypes=[object])(array)
    return array.tolist()
