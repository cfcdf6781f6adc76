"""The Open Inference Protocol, version 2, over HTTP, as KServe, Triton and others speak it.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol, with its binary
tensor data extension for inputs; outputs are JSON. A request's parameter `signature_name` chooses
what a model is asked for. A file in JSON is the base64 of its bytes, since JSON has none.
"""

import asyncio
import math
import re
import struct
from collections.abc import Callable, Iterator
from importlib.metadata import version as version_of
from itertools import islice
from typing import Annotated, Any

import numpy as np
import tensorflow as tf
from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response
from tensorflow.core.framework import types_pb2

from pipelines.errors import BadInput
from pipelines.serving.admission import Admission
from pipelines.serving.openapi import answers, takes
from pipelines.serving.repository import Repository
from pipelines.serving.tensorflow_serving import (
    DEFAULT_SIGNATURE,
    from_base64,
    from_json,
    from_numbers,
)
from pipelines.serving.versions import ServedVersion, Signature

DATATYPES = {tf.string: "BYTES", tf.uint8: "UINT8", tf.int32: "INT32", tf.float32: "FP32"}
ARRAY_DATATYPES = {"O": "BYTES", "i": "INT32", "f": "FP32"}
LENGTH = struct.Struct("<I")
JSON_LENGTH = "inference-header-content-length"
INFER_BODY = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "parameters": {"type": "object"},
        "inputs": {
            "type": "array",
            "minItems": 1,
            "maxItems": 1,
            "items": {
                "type": "object",
                "required": ["name", "shape", "datatype"],
                "properties": {
                    "name": {"type": "string"},
                    "shape": {"type": "array", "items": {"type": "integer"}},
                    "datatype": {"type": "string"},
                    "parameters": {"type": "object"},
                    "data": {"type": "array"},
                },
            },
        },
        "outputs": {
            "type": "array",
            "items": {"type": "object", "properties": {"name": {"type": "string"}}},
        },
    },
}


def routes(repository: Repository, admission: Admission) -> APIRouter:
    """The API over the models of a repository."""
    router = APIRouter(tags=["Open Inference Protocol"])

    @router.get("/v2")
    async def server() -> dict[str, Any]:
        name = "imagenet-classics-zoo"
        return {"name": name, "version": version_of(name), "extensions": []}

    @router.get("/v2/health/live", response_class=Response)
    async def live() -> Response:
        return Response()

    @router.get("/v2/health/ready", response_class=Response, responses=answers(503))
    async def ready() -> Response:
        if repository.ready:
            return Response()
        return JSONResponse({"error": "no model has a version that loads"}, status_code=503)

    async def latest(name: str) -> ServedVersion:
        return repository.latest(name)

    async def numbered(name: str, version: str) -> ServedVersion:
        return repository.numbered(name, version)

    _add_version(router, "/v2/models/{name}", latest, repository, admission)
    _add_version(router, "/v2/models/{name}/versions/{version}", numbered, repository, admission)
    return router


def _add_version(
    router: APIRouter, path: str, find: Callable, repository: Repository, admission: Admission
) -> None:
    """Adds what can be asked of one version, however it is found."""

    @router.get(path, operation_id=f"metadata {path}", responses=answers(404))
    async def metadata(version: Annotated[ServedVersion, Depends(find)]) -> dict[str, Any]:
        rows = repository.status(version.name)
        signature = version.definitions[DEFAULT_SIGNATURE]
        return {
            "name": version.name,
            "versions": [row["version"] for row in rows if row["state"] == "AVAILABLE"],
            "platform": "tensorflow_savedmodel",
            "inputs": _tensors(signature["inputs"]),
            "outputs": _tensors(signature["outputs"]),
        }

    @router.get(
        f"{path}/ready",
        operation_id=f"ready {path}",
        response_class=Response,
        responses=answers(404),
    )
    async def ready(version: Annotated[ServedVersion, Depends(find)]) -> Response:
        return Response()

    @router.post(
        f"{path}/infer",
        operation_id=f"infer {path}",
        openapi_extra=takes({"application/json": INFER_BODY}),
        responses=answers(400, 404, 408, 413, 429, 504),
    )
    async def infer(
        version: Annotated[ServedVersion, Depends(find)], request: Request
    ) -> dict[str, Any]:
        request.state.facts.update(model=version.name, version=version.number)
        async with admission.admitted(request) as call:
            question, signature, items = await asyncio.to_thread(
                _read,
                await call.body(),
                request.headers.get(JSON_LENGTH),
                version,
                call.require_images,
            )
            asked = _asked(question)
            outputs = await call.answer(signature, items)
        if unknown := asked - outputs.keys():
            raise BadInput(f"unknown output {min(unknown)[:80]!r}; there are {', '.join(outputs)}")
        answer = {
            "model_name": version.name,
            "model_version": str(version.number),
            "outputs": [
                _output(name, array)
                for name, array in outputs.items()
                if not asked or name in asked
            ],
        }
        return answer | ({"id": question["id"]} if isinstance(question.get("id"), str) else {})


def _tensors(definitions: dict[str, Any]) -> list[dict[str, Any]]:
    """A signature's inputs or outputs, as model metadata lists them; -1 is any length."""
    return [
        {
            "name": name,
            "datatype": DATATYPES[tf.as_dtype(types_pb2.DataType.Value(tensor["dtype"]))],
            "shape": [int(size["size"]) for size in tensor["tensor_shape"]["dim"]],
        }
        for name, tensor in sorted(definitions.items())
    ]


def _read(
    body: bytes,
    json_length: str | None,
    version: ServedVersion,
    require_images: Callable[[int], None],
) -> tuple[dict[str, Any], Signature, list[bytes] | np.ndarray]:
    """The JSON object of a request, what it asks, and about which items."""
    question, binary = _parts(body, json_length)
    signature = version.signature(_signature_name(question))
    return question, signature, _items(question, binary, signature, require_images)


def _parts(body: bytes, json_length: str | None) -> tuple[dict[str, Any], memoryview]:
    """The JSON object of a request, and the binary data behind it."""
    if json_length is not None and not re.fullmatch("[0-9]{1,10}", json_length):
        raise BadInput(f"{JSON_LENGTH} is {json_length[:80]!r}, not a number of bytes")
    split = len(body) if json_length is None else int(json_length)
    question = from_json(body[:split])
    if not isinstance(question, dict) or not isinstance(question.get("inputs"), list):
        raise BadInput('the body is not {"inputs": [{"name", "shape", "datatype", "data"}]}')
    return question, memoryview(body)[split:]


def _signature_name(question: dict[str, Any]) -> str:
    name = _parameters(question).get("signature_name", DEFAULT_SIGNATURE)
    if not isinstance(name, str):
        raise BadInput("the parameter signature_name is not a string")
    return name


def _parameters(of: dict[str, Any]) -> dict[str, Any]:
    parameters = of.get("parameters", {})
    if not isinstance(parameters, dict):
        raise BadInput("parameters is not an object")
    return parameters


def _asked(question: dict[str, Any]) -> set[str]:
    """The names of the outputs that are asked for; none are all."""
    outputs = question.get("outputs", [])
    if not isinstance(outputs, list) or not all(
        isinstance(output, dict) and isinstance(output.get("name"), str) for output in outputs
    ):
        raise BadInput('outputs is not a list of objects with a "name"')
    return {output["name"] for output in outputs}


def _items(
    question: dict[str, Any],
    binary: memoryview,
    signature: Signature,
    require_images: Callable[[int], None],
) -> list[bytes] | np.ndarray:
    """The images of a request's one input."""
    inputs = question["inputs"]
    if len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise BadInput(f"inputs has {len(inputs)} elements; one, {signature.input_name!r}")
    tensor = inputs[0]
    expected = {"name": signature.input_name, "datatype": DATATYPES[signature.spec.dtype]}
    for key, value in expected.items():
        if tensor.get(key) != value:
            raise BadInput(f"the input's {key} is {str(tensor.get(key))[:80]!r}; {value!r}")
    shape = tensor.get("shape")
    if not isinstance(shape, list) or not all(type(n) is int and n >= 1 for n in shape):
        raise BadInput("the input's shape is not a list of whole numbers from 1 on")
    if not signature.spec.shape.is_compatible_with(shape):
        raise BadInput(
            f"the input's shape is {str(shape)[:80]}; {signature.input_name} takes "
            f"{signature.spec.shape}"
        )
    require_images(shape[0])
    size = _parameters(tensor).get("binary_data_size")
    if size is not None:
        if size != len(binary):
            raise BadInput(
                f"binary_data_size is {str(size)[:80]}; {len(binary)} bytes follow the JSON"
            )
        return FROM_BINARY[expected["datatype"]](binary, shape)
    return FROM_JSON[expected["datatype"]](tensor.get("data"), shape)


def _files_of_json(data: Any, shape: list[int]) -> list[bytes]:
    if not isinstance(data, list) or not all(isinstance(text, str) for text in data):
        raise BadInput("data is not a list of strings, the base64 of an image file each")
    _require_length(len(data), shape)
    return [from_base64(text, f"element {number} of data") for number, text in enumerate(data)]


def _images_of_json(data: Any, shape: list[int]) -> np.ndarray:
    """Of a flat list or a nested one, both of which the protocol allows."""
    pixels = from_numbers(data)
    _require_length(pixels.size, shape)
    return pixels.reshape(shape)


def _files_of_binary(binary: memoryview, shape: list[int]) -> list[bytes]:
    elements = _elements(binary)
    files = [*islice(elements, shape[0])]
    if len(files) < shape[0] or next(elements, None) is not None:
        raise BadInput(f"the binary data does not have {shape[0]} elements, as its shape says")
    return files


def _elements(binary: memoryview) -> Iterator[bytes]:
    """The elements of a BYTES tensor: the length of each in four bytes before it."""
    at = 0
    while at < len(binary):
        if len(binary) - at < LENGTH.size:
            raise BadInput("the binary data ends inside an element's length")
        (length,) = LENGTH.unpack_from(binary, at)
        at += LENGTH.size
        if length > len(binary) - at:
            raise BadInput("the binary data ends inside an element")
        yield bytes(binary[at : at + length])
        at += length


def _images_of_binary(binary: memoryview, shape: list[int]) -> np.ndarray:
    _require_length(len(binary), shape)
    return np.frombuffer(binary, np.uint8).reshape(shape)


def _require_length(length: int, shape: list[int]) -> None:
    if length != math.prod(shape):
        raise BadInput(
            f"the input has {length} elements; its shape {str(shape)[:80]} says otherwise"
        )


FROM_JSON = {"BYTES": _files_of_json, "UINT8": _images_of_json}
FROM_BINARY = {"BYTES": _files_of_binary, "UINT8": _images_of_binary}


def _output(name: str, array: np.ndarray) -> dict[str, Any]:
    return {
        "name": name,
        "datatype": ARRAY_DATATYPES[array.dtype.kind],
        "shape": list(array.shape),
        "data": array.ravel().tolist(),
    }
