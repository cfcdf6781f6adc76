"""TensorFlow Serving's REST API: status, metadata and `:predict`, in the row and column form.

https://www.tensorflow.org/tfx/serving/api_rest. `:classify` and `:regress` are not here: they take
`tf.Example`s, and no exported model does.
"""

import asyncio
import base64
import json
from collections.abc import Callable
from itertools import chain
from typing import Annotated, Any

import numpy as np
import tensorflow as tf
from fastapi import APIRouter, Depends, Request
from starlette.exceptions import HTTPException

from pipelines.errors import BadInput
from pipelines.serving.admission import Admission
from pipelines.serving.openapi import answers, takes
from pipelines.serving.repository import Repository
from pipelines.serving.versions import ServedVersion, Signature

DEFAULT_SIGNATURE = "serving_default"
# The parser lets nothing else run: so many take it a third of a second.
MAX_JSON_VALUES = 2_000_000
EXAMPLE = {"instances": [{"b64": "<base64 of an image file>"}]}
PREDICT_BODY = {
    "type": "object",
    "properties": {
        "signature_name": {"type": "string"},
        "instances": {"type": "array", "minItems": 1},
        "inputs": {},
    },
}


def routes(repository: Repository, admission: Admission) -> APIRouter:
    """The API over the models of a repository."""
    router = APIRouter(tags=["TensorFlow Serving"], responses=answers(404))

    async def latest(name: str) -> ServedVersion:
        return repository.latest(name)

    async def numbered(name: str, version: str) -> ServedVersion:
        return repository.numbered(name, version)

    async def labelled(name: str, label: str) -> ServedVersion:
        return repository.labelled(name, label)

    @router.get("/v1/models/{name}")
    async def status(name: str) -> dict[str, Any]:
        return {"model_version_status": repository.status(name)}

    _add_version(router, "/v1/models/{name}", latest, admission)
    for path, find in (
        ("/v1/models/{name}/versions/{version}", numbered),
        ("/v1/models/{name}/labels/{label}", labelled),
    ):
        _add_status(router, path, find, repository)
        _add_version(router, path, find, admission)
    return router


def _add_status(router: APIRouter, path: str, find: Callable, repository: Repository) -> None:
    @router.get(path, operation_id=f"status {path}")
    async def status(version: Annotated[ServedVersion, Depends(find)]) -> dict[str, Any]:
        rows = repository.status(version.name)
        return {
            "model_version_status": [row for row in rows if row["version"] == str(version.number)]
        }


def _add_version(router: APIRouter, path: str, find: Callable, admission: Admission) -> None:
    """Adds what can be asked of one version, however it is found."""

    @router.get(f"{path}/metadata", operation_id=f"metadata {path}")
    async def metadata(version: Annotated[ServedVersion, Depends(find)]) -> dict[str, Any]:
        return {
            "model_spec": {
                "name": version.name,
                "signature_name": "",
                "version": str(version.number),
            },
            "metadata": {"signature_def": {"signature_def": version.definitions}},
        }

    @router.post(
        f"{path}:predict",
        operation_id=f"predict {path}",
        openapi_extra=takes({"application/json": PREDICT_BODY}),
        responses=answers(400, 408, 413, 429, 504),
    )
    async def predict(
        version: Annotated[ServedVersion, Depends(find)], request: Request
    ) -> dict[str, Any]:
        request.state.facts.update(model=version.name, version=version.number)
        async with admission.admitted(request) as call:
            form, signature, items = await asyncio.to_thread(
                _read, await call.body(), version, call.require_images
            )
            return WRITE[form](await call.answer(signature, items))


def _read(
    body: bytes, version: ServedVersion, require_images: Callable[[int], None]
) -> tuple[str, Signature, list[bytes] | np.ndarray]:
    """What form a request has, what it asks, and about which items."""
    question = from_json(body)
    if not isinstance(question, dict):
        raise BadInput(f"the body is not an object like {json.dumps(EXAMPLE)}")
    signature = version.signature(_signature_name(question))
    form = _form(question)
    values = READ[form](question[form], signature.input_name)
    require_images(len(values))
    if signature.spec.dtype != tf.string:
        return form, signature, images(values, signature)
    which = f"{form.removesuffix('s')} {{}}"
    return form, signature, [_bytes(value, which.format(n)) for n, value in enumerate(values)]


def from_json(body: bytes) -> Any:
    """The value that a body stands for.

    Raises:
        HTTPException: 413, it may hold more than `MAX_JSON_VALUES` values.
        BadInput: it is no JSON.
    """
    # Base64 has none of these.
    most = len(body) - len(body.translate(None, b",[{"))
    if most > MAX_JSON_VALUES:
        raise HTTPException(
            413,
            f"the JSON holds up to {most} values, of at most {MAX_JSON_VALUES}; send images as "
            "files, or pixels as the binary data of /v2",
        )
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"the body is not JSON that can be read: {error}") from error


def _signature_name(question: dict[str, Any]) -> str:
    name = question.get("signature_name") or DEFAULT_SIGNATURE
    if not isinstance(name, str):
        raise BadInput("signature_name is not a string")
    return name


def _form(question: dict[str, Any]) -> str:
    given = [form for form in READ if form in question]
    if len(given) != 1:
        raise BadInput(
            f"the body has {' and '.join(given) or 'neither instances nor inputs'}; "
            f"one of them, like {json.dumps(EXAMPLE)}"
        )
    return given[0]


def _rows(instances: Any, name: str) -> list[Any]:
    """The values of the row form: each as it is, or in an object that names its one input."""
    if not isinstance(instances, list) or not instances:
        raise BadInput(f"instances is not a list like that of {json.dumps(EXAMPLE)}")
    return [
        instance[name] if isinstance(instance, dict) and instance.keys() == {name} else instance
        for instance in instances
    ]


def _columns(inputs: Any, name: str) -> list[Any]:
    """The values of the column form: a list, or an object with the list of its one input."""
    values = inputs[name] if isinstance(inputs, dict) and inputs.keys() == {name} else inputs
    if not isinstance(values, list) or not values:
        raise BadInput(f'inputs is neither a list nor {{"{name}": [...]}}')
    return values


def _bytes(value: Any, which: str) -> bytes:
    if not (isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str)):
        raise BadInput(f'{which} is not {{"b64": "<base64 of an image file>"}}')
    return from_base64(value["b64"], which)


def from_base64(text: str, which: str) -> bytes:
    """The bytes that a text stands for.

    Raises:
        BadInput: it is no base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise BadInput(f"{which} is not valid base64: {error}") from error


def images(values: list[Any], signature: Signature) -> np.ndarray:
    """Nested lists -> uint8 `(B, H, W, 3)`.

    Raises:
        BadInput: another shape, or anything but whole numbers from 0 to 255.
    """
    array = from_numbers(values)
    if not signature.spec.shape.is_compatible_with(array.shape):
        raise BadInput(
            f"the images have the shape {array.shape}; {signature.input_name} takes "
            f"{signature.spec.shape}"
        )
    return array


def from_numbers(values: Any) -> np.ndarray:
    """A list, or equally nested lists -> uint8, in their shape.

    Raises:
        BadInput: anything but whole numbers from 0 to 255, or lists of different lengths.
    """
    leaves, shape = [values], ()
    # Each pass opens all the lists of one depth.
    while {*map(type, leaves)} == {list}:
        lengths = {*map(len, leaves)}
        if len(lengths) > 1:
            raise BadInput("the pixels are not equally nested: lists beside each other differ")
        shape += (*lengths,)
        leaves = [*chain.from_iterable(leaves)]
    try:
        if {*map(type, leaves)} == {int}:
            return np.frombuffer(bytes(leaves), np.uint8).reshape(shape)
    except ValueError:
        pass
    raise BadInput("pixels are whole numbers from 0 to 255, in equally nested lists")


def _by_row(outputs: dict[str, np.ndarray]) -> dict[str, Any]:
    columns = {name: column.tolist() for name, column in outputs.items()}
    if len(columns) == 1:
        return {"predictions": next(iter(columns.values()))}
    return {
        "predictions": [
            dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
        ]
    }


def _by_column(outputs: dict[str, np.ndarray]) -> dict[str, Any]:
    columns = {name: column.tolist() for name, column in outputs.items()}
    return {"outputs": columns if len(columns) > 1 else next(iter(columns.values()))}


# What a request's items are called decides about the form of the answer.
READ = {"instances": _rows, "inputs": _columns}
WRITE = {"instances": _by_row, "inputs": _by_column}
