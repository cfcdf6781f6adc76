"""What an operator sees of the server: Prometheus metrics, and a line of JSON for every request."""

import json
import logging
import sys
import time
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# When a counter began is in no answer that anybody asks for, and doubles their number.
disable_created_metrics()

LOG = logging.getLogger("pipelines.serving")
FUNCTION = ("model", "version", "function")


class Metrics:
    """The server's counters, each in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._make(Counter, "requests", "Answered requests", "route", "status")
        self.request_seconds = self._make(
            Histogram, "request_seconds", "From a request's head to its answer's end", "route"
        )
        self.part_seconds = self._make(
            Histogram, "part_seconds", "A request's time in read, decode, queue, network", "part"
        )
        self.network_seconds = self._make(
            Histogram, "network_seconds", "One call of the network", *FUNCTION
        )
        self.images = self._make(Counter, "images", "Images the network has seen", *FUNCTION)
        self.images_in_flight = self._make(
            Gauge, "images_in_flight", "Images that were let in and are not answered"
        )
        self.versions = self._make(
            Gauge, "versions", "1 for each version that is served", "model", "version"
        )
        self.failed_loads = self._make(
            Counter, "failed_loads", "Versions that did not load", "model"
        )

    def forget(self, model: str, version: int) -> None:
        """Drops what is counted by version of one that is served no more."""
        for metric in (self.versions, self.images, self.network_seconds):
            metric.remove_by_labels({"model": model, "version": str(version)})

    def _make(self, kind: type, name: str, meaning: str, *labels: str) -> Any:
        return kind(name, meaning, labels, namespace="serving", registry=self.registry)


class Observed:
    """Counts and logs every request to an application, and tells the client where its time went.

    Handlers add what they know to `request.state.facts`; the parts in `request.state.parts`, in
    seconds, become the answer's `Server-Timing` header (W3C Server Timing) in milliseconds.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        facts: dict[str, Any] = {}
        parts: dict[str, float] = {}
        scope.setdefault("state", {}).update(facts=facts, parts=parts)
        status = 500

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if parts:
                    timing = ", ".join(f"{name};dur={1e3 * s:.2f}" for name, s in parts.items())
                    message["headers"] = [*message["headers"], (b"server-timing", timing.encode())]
            await send(message)

        try:
            await self._app(scope, receive, observed)
        finally:
            seconds = time.perf_counter() - begun
            route = getattr(scope.get("route"), "path", "")
            self._metrics.requests.labels(route, status).inc()
            self._metrics.request_seconds.labels(route).observe(seconds)
            for name, part_s in parts.items():
                self._metrics.part_seconds.labels(name).observe(part_s)
            LOG.info(
                "request",
                extra={
                    "facts": {
                        "method": scope["method"],
                        "path": scope["path"],
                        "status": status,
                        "seconds": round(seconds, 4),
                        **facts,
                        **{f"{name}_s": round(part_s, 4) for name, part_s in parts.items()},
                    }
                },
            )


class JsonLines(logging.Formatter):
    """Each record as one JSON object on one line: time, level, event, and its `facts`."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def log_to_stderr() -> None:
    """Sends this server's and uvicorn's log to standard error, as lines of JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name, level in (("pipelines.serving", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
