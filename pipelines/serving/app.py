"""The FastAPI application: every protocol over the same models and the same limits."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from pipelines.config import ServeConfig
from pipelines.errors import BadInput
from pipelines.serving import classify, open_inference, tensorflow_serving
from pipelines.serving.admission import Admission
from pipelines.serving.connections import EarlyAnswers
from pipelines.serving.observing import LOG, Metrics, Observed
from pipelines.serving.page import routes as page
from pipelines.serving.repository import Repository

PROTOCOLS = (page, classify, tensorflow_serving, open_inference)


def create_app(config: ServeConfig, repository: Repository, metrics: Metrics) -> FastAPI:
    """The application over the models of a repository; every error is `{"error": "..."}`."""

    @asynccontextmanager
    async def watching(_: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(_watch(repository, config.poll_s))
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    # FastAPI's own pages of the schema fetch their scripts from elsewhere.
    app = FastAPI(title="ImageNet classics zoo", lifespan=watching, docs_url=None, redoc_url=None)
    app.add_middleware(Observed, metrics=metrics)
    app.add_middleware(EarlyAnswers, patience_s=config.read_timeout_s)

    @app.exception_handler(BadInput)
    async def bad_input(request: Request, error: BadInput) -> JSONResponse:
        return _refusal(request, 400, str(error))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        return _refusal(request, error.status_code, error.detail, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return _refusal(request, 400, "; ".join(part["msg"] for part in error.errors()))

    @app.exception_handler(Exception)
    async def fault(request: Request, error: Exception) -> JSONResponse:
        # uvicorn logs it, with its traceback.
        return _refusal(request, 500, f"internal error: {type(error).__name__}")

    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics", response_class=Response)
    async def exposition() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    admission = Admission(config, metrics)
    for protocol in PROTOCOLS:
        app.include_router(protocol.routes(repository, admission))
    return app


def _refusal(
    request: Request, status: int, message: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    message = " ".join(message.split())
    request.state.facts["error"] = message
    return JSONResponse({"error": message}, status, headers)


async def _watch(repository: Repository, every_s: float) -> None:
    """Looks for new versions as long as the server runs."""
    while True:
        await asyncio.sleep(every_s)
        try:
            await asyncio.to_thread(repository.refresh)
        # The folder may be away for a while; what is loaded stays.
        except Exception as error:
            LOG.error("models folder", exc_info=error)
