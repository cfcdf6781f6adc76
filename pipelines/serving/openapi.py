"""What the OpenAPI schema says of bodies that FastAPI does not read, and of refusals."""

from typing import Any

ERROR = {
    "type": "object",
    "properties": {"error": {"type": "string"}},
    "required": ["error"],
}
REFUSALS = {
    400: "The request cannot be used; the message says what of it",
    404: "Nothing of that name is served",
    408: "The body did not come in time",
    413: "The body is larger than allowed, or its JSON holds too many values",
    429: "The server has no place for more images; try again",
    503: "Not ready",
    504: "Not answered by the deadline",
}


def answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The refusals of a route, for its `responses`."""
    content = {"application/json": {"schema": ERROR}}
    return {status: {"description": REFUSALS[status], "content": content} for status in statuses}


def takes(content: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A body by its media types and their schemas, for a route's `openapi_extra`."""
    described = {media: {"schema": schema} for media, schema in content.items()}
    return {"requestBody": {"required": True, "content": described}}
