"""Connections that say nothing are closed; uvicorn alone would hold them for ever."""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol


class PatientProtocol(H11Protocol):
    """uvicorn's HTTP protocol, that waits for a request's head no longer than `timeout_keep_alive`.

    However slowly it comes: the clock starts with the connection or the head's first byte. It takes
    the rest of a body that was refused for as long: to close a connection on a client that still
    sends would take the answer away with it.
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
