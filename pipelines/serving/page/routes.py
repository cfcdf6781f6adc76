"""The page's files, and `POST /explain/NAME`: where a network looked in an image."""

import asyncio
import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from PIL import Image

from pipelines.errors import BadInput
from pipelines.reporting.heat import heat_colours
from pipelines.serving.admission import Admission
from pipelines.serving.classify import BODY, THE_FILE, image_file
from pipelines.serving.openapi import answers, takes
from pipelines.serving.repository import Repository

FOLDER = Path(__file__).parent
MEDIA_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
# Nothing comes from elsewhere; pictures also from the memory of the page (blob:, data:).
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def routes(repository: Repository, admission: Admission) -> APIRouter:
    """The page at `/`, its files under `/page/`, and its question to the models of a repository."""
    router = APIRouter(tags=["Explanation"])
    for file in sorted(FOLDER.rglob("*")):
        if file.suffix in MEDIA_TYPES:
            router.add_api_route(
                _path(file), _sender(file), methods=["GET", "HEAD"], include_in_schema=False
            )

    @router.post(
        "/explain/{name}",
        openapi_extra=takes(BODY),
        responses=answers(400, 404, 408, 413, 429, 504),
    )
    async def explain(name: str, class_id: int, request: Request) -> dict[str, Any]:
        version = repository.latest(name)
        request.state.facts.update(model=version.name, version=version.number)
        if not 0 <= class_id < len(version.labels):
            raise BadInput(
                f"class_id is {class_id}; {version.name} has the classes 0 to "
                f"{len(version.labels) - 1}"
            )
        async with admission.admitted(request) as call:
            encoded = await image_file(request, await call.body())
            signature = version.signature("serving_default")
            (pixels,) = await call.pixels(signature, [encoded], THE_FILE)
            row = await version.explain(pixels, np.int32(class_id))
            crop, overlay = await asyncio.to_thread(_pictures, pixels, row.outputs)
        return {
            "model": version.name,
            "version": version.number,
            "class": version.labels[class_id],
            "class_id": class_id,
            "heat": row.outputs.tolist(),
            "crop": crop,
            "overlay": overlay,
        }

    return router


def _path(file: Path) -> str:
    """`/page/` and the file's place in this folder; `/` of the page itself."""
    return "/" if file.name == "index.html" else f"/page/{file.relative_to(FOLDER).as_posix()}"


def _sender(file: Path) -> Callable[[], Any]:
    content, media_type = file.read_bytes(), MEDIA_TYPES[file.suffix]

    async def send() -> Response:
        return Response(content, media_type=media_type, headers=HEADERS)

    return send


def _pictures(pixels: np.ndarray, heat: np.ndarray) -> tuple[str, str]:
    """What the network saw, and the heat map to lay over it, as PNG files in `data:` addresses.

    Args:
        pixels: uint8 `(S, S, 1 | 3)`.
        heat: float32 `(h, w)` in [0, 1].

    Returns:
        The pixels unchanged; and the heat, interpolated to their size, from dark to bright.
    """
    return _address(pixels.squeeze()), _address(heat_colours(heat, pixels.shape[1::-1]))


def _address(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
