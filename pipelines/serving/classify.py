"""What people try first: `POST /classify/NAME` with a file's bytes, or as a form uploads it."""

from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from pipelines.errors import BadInput
from pipelines.serving.admission import Admission
from pipelines.serving.openapi import answers, takes
from pipelines.serving.repository import Repository

# What messages call the image.
THE_FILE = "the file"
FORM = "multipart/form-data"
BINARY = {"type": "string", "format": "binary"}
BODY = {
    "application/octet-stream": BINARY,
    "image/*": BINARY,
    FORM: {"type": "object", "properties": {"image": BINARY}, "required": ["image"]},
}


def routes(repository: Repository, admission: Admission) -> APIRouter:
    """The route over the models of a repository, and the list of them."""
    router = APIRouter(tags=["Classification"])

    @router.get("/classify")
    async def models() -> dict[str, Any]:
        versions = {name: [] for name in repository.names()}
        for name, numbers in versions.items():
            rows = repository.status(name)
            numbers += [int(row["version"]) for row in rows if row["state"] == "AVAILABLE"]
        return {"models": [{"name": name, "versions": rows} for name, rows in versions.items()]}

    @router.post(
        "/classify/{name}",
        openapi_extra=takes(BODY),
        responses=answers(400, 404, 408, 413, 429, 504),
    )
    async def classify(name: str, request: Request) -> dict[str, Any]:
        version = repository.latest(name)
        request.state.facts.update(model=version.name, version=version.number)
        async with admission.admitted(request) as call:
            encoded = await image_file(request, await call.body())
            outputs = await call.answer(version.signature("serving_default"), [encoded], THE_FILE)
        rows = zip(*(outputs[key][0].tolist() for key in COLUMNS.values()), strict=True)
        return {
            "model": version.name,
            "version": version.number,
            "predictions": [dict(zip(COLUMNS, row, strict=True)) for row in rows],
        }

    return router


# What a prediction calls the columns of the signature.
COLUMNS = {"class": "classes", "class_id": "class_ids", "probability": "probabilities"}


async def image_file(request: Request, body: bytes) -> bytes:
    """The file of a request: the first that a form holds, or else the body itself.

    Raises:
        BadInput: a form without a file.
    """
    if not request.headers.get("content-type", "").lower().startswith(FORM):
        return body

    async def chunks() -> AsyncIterator[bytes]:
        yield body

    try:
        form = await MultiPartParser(request.headers, chunks()).parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise BadInput(f"the form cannot be read: {error}") from error
    files = [value for value in form.values() if isinstance(value, UploadFile)]
    try:
        if files:
            return await files[0].read()
    finally:
        await form.close()
    raise BadInput("the form has no file; curl -F image=@photograph.jpg sends one")
