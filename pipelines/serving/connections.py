"""Connections that say nothing are closed, and those whose next request cannot be told."""

import asyncio
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol


class PatientProtocol(H11Protocol):
    """uvicorn's HTTP protocol, that waits for a request's head no longer than `timeout_keep_alive`.

    However slowly it comes: the clock starts with the connection or the head's first byte. uvicorn
    alone would wait for ever.
    """

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._time_the_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._time_the_head()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_timing()

    def _time_the_head(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_timing()
        elif self._timer is None:
            self._timer = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _stop_timing(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class EarlyAnswers:
    """Closes the connection of a request that was answered before its body had ended.

    Whether the rest of the body follows, or the next request, is not known (RFC 9110, section
    10.1.1). What follows is read for a while and dropped: to close a connection on a client that
    still sends would take the answer away with it.

    Args:
        app: the application.
        patience_s: how long the rest of a body is read.
    """

    def __init__(self, app: ASGIApp, patience_s: float) -> None:
        self._app = app
        self._patience_s = patience_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        waits = headers.get(b"expect", b"").lower() == b"100-continue"
        unread = b"transfer-encoding" in headers or int(headers.get(b"content-length", 0)) > 0
        early = False

        async def reading() -> Message:
            nonlocal unread, waits
            waits = False
            message = await receive()
            unread = unread and message.get("more_body", False)
            return message

        async def answering(message: Message) -> None:
            nonlocal early
            if message["type"] == "http.response.start" and unread:
                early = True
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            await send({**message, "more_body": True} if early else message)

        await self._app(scope, reading, answering)
        if early:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._patience_s):
                    while unread and not waits:
                        await reading()
            await send({"type": "http.response.body"})
