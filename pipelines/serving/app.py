"""TensorFlow Serving's REST API as a FastAPI application."""

import json
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from pipelines.errors import BadInput
from pipelines.serving.models import ServedModel


def create_app(models: dict[str, ServedModel]) -> FastAPI:
    """The application over loaded models; every error is `{"error": "..."}`."""
    app = FastAPI(title="ImageNet classics zoo")

    @app.exception_handler(BadInput)
    async def bad_input(_: Request, error: BadInput) -> JSONResponse:
        return JSONResponse({"error": str(error)}, status_code=400)

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": error.detail}, status_code=error.status_code)

    @app.exception_handler(Exception)
    async def fault(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": f"internal error: {type(error).__name__}"}, status_code=500)

    def find(name: str) -> ServedModel:
        if name not in models:
            raise HTTPException(404, f"unknown model {name!r}; this server has {sorted(models)}")
        return models[name]

    @app.get("/v1/models/{name}")
    async def status(name: str) -> dict[str, Any]:
        return find(name).status()

    @app.get("/v1/models/{name}/metadata")
    async def metadata(name: str) -> dict[str, Any]:
        return find(name).metadata()

    @app.post("/v1/models/{name}:predict")
    async def predict(name: str, request: Request) -> dict[str, Any]:
        model = find(name)
        instances, signature_name = _read(await request.body())
        predictions = await run_in_threadpool(model.predict, instances, signature_name)
        return {"predictions": predictions}

    return app


def _read(body: bytes) -> tuple[list[Any], str]:
    """The instances and the signature's name of a predict request."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"the body is not JSON that can be read: {error}") from error
    instances = request.get("instances") if isinstance(request, dict) else None
    if not isinstance(instances, list) or not instances:
        raise BadInput('the body is not {"instances": [{"b64": "..."}, ...]}')
    return instances, str(request.get("signature_name") or "serving_default")
