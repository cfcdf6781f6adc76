"""What a request may take: a place, a body, images, time. Whatever protocol it speaks."""

import asyncio
import io
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from pipelines.config import ServeConfig
from pipelines.data.parallel import available_cores
from pipelines.errors import BadInput
from pipelines.serving.observing import Metrics
from pipelines.serving.versions import Signature

MIB = 2**20
# A place is free again when a batch is done: within the second that is the header's unit.
RETRY_AFTER_S = 1


class Admission:
    """The places of the server: images that may be in it at a time, their decoding included.

    A request takes a place when its body is whole, and one more for each further image it turns out
    to hold: who sends slowly keeps nobody out. Where none is free it is refused at once, before its
    body is read: what waits outside can go elsewhere. The bytes of all bodies have a limit too.
    """

    def __init__(self, config: ServeConfig, metrics: Metrics) -> None:
        self._config = config
        self._free = config.max_in_flight
        self._free_bytes = config.max_bodies_mib * MIB
        self._metrics = metrics
        self._decoders = ThreadPoolExecutor(available_cores(), "decode")

    @asynccontextmanager
    async def admitted(self, request: Request) -> AsyncIterator["Call"]:
        """The context in which a request is worked on.

        Raises:
            HTTPException: 429, there is no place; 504, the work was not done by the deadline.
        """
        call = Call(request, self._config, self, self._decoders)
        self._require_places(1)
        try:
            async with asyncio.timeout(self._config.deadline_s):
                yield call
        except TimeoutError as error:
            raise HTTPException(
                504, f"not answered within {self._config.deadline_s:g} s, the server's deadline"
            ) from error
        finally:
            self.take(-call.places)
            self.take_bytes(-call.body_bytes)

    def take(self, places: int) -> None:
        self._require_places(places)
        self._free -= places
        self._metrics.images_in_flight.inc(places)

    def take_bytes(self, number: int) -> None:
        if number > self._free_bytes:
            raise _busy(f"bodies of {self._config.max_bodies_mib} MiB are here, the most allowed")
        self._free_bytes -= number

    def _require_places(self, places: int) -> None:
        if places > self._free:
            raise _busy(
                f"{self._config.max_in_flight - self._free} images are in flight of at most "
                f"{self._config.max_in_flight}"
            )


def _busy(reason: str) -> HTTPException:
    return HTTPException(
        429, f"{reason}; try again in {RETRY_AFTER_S} s", {"Retry-After": str(RETRY_AFTER_S)}
    )


class Call:
    """A request that was let in.

    Attributes:
        places: how many it holds.
        body_bytes: how much of its body has come.
    """

    def __init__(
        self,
        request: Request,
        config: ServeConfig,
        admission: Admission,
        decoders: ThreadPoolExecutor,
    ) -> None:
        self.places = 0
        self.body_bytes = 0
        self._request = request
        self._config = config
        self._admission = admission
        self._decoders = decoders

    async def body(self) -> bytes:
        """The whole body; takes the request's first place.

        Raises:
            HTTPException: 413, it is larger than allowed; 408, it did not come in time; 429, there
                is no room for it.
        """
        begun = time.perf_counter()
        limit = self._config.max_body_mib * MIB
        too_large = HTTPException(413, f"the body is larger than {self._config.max_body_mib} MiB")
        if int(self._request.headers.get("content-length", 0)) > limit:
            raise too_large
        # Gives its bytes without a copy of them.
        body = io.BytesIO()
        try:
            async with asyncio.timeout(self._config.read_timeout_s):
                async for chunk in self._request.stream():
                    if self.body_bytes + len(chunk) > limit:
                        raise too_large
                    self._admission.take_bytes(len(chunk))
                    self.body_bytes += len(chunk)
                    body.write(chunk)
        except TimeoutError as error:
            raise HTTPException(
                408, f"the body did not come within {self._config.read_timeout_s:g} s"
            ) from error
        except ClientDisconnect as error:
            raise HTTPException(400, "the client went away before its body was whole") from error
        self._spent("read", time.perf_counter() - begun)
        self._take(1)
        return body.getvalue()

    async def answer(
        self, signature: Signature, items: Sequence[Any], called: str = "instance {}"
    ) -> dict[str, np.ndarray]:
        """The signature's outputs, one row an item.

        Args:
            signature: what is asked.
            items: what it is asked about.
            called: what a message calls an item, with its number.

        Raises:
            BadInput: too many items, or one that is no image; the message names it.
        """
        decoded = await self.pixels(signature, items, called)
        asked = [asyncio.ensure_future(signature.network(pixels)) for pixels in decoded]
        try:
            rows = await asyncio.gather(*asked)
        finally:
            # Where one fails, the others give up their places, also those in the queue.
            for row in asked:
                row.cancel()
        self._spent("queue", max(row.queue_s for row in rows))
        self._spent("network", max(row.network_s for row in rows))
        return signature.outputs(np.stack([row.outputs for row in rows]))

    def require_images(self, number: int) -> None:
        """Refuses a request for what it is said to hold, before any of that is read.

        Raises:
            BadInput: no images, or more than allowed.
        """
        if not 0 < number <= self._config.max_instances:
            raise BadInput(
                f"{number} images in one request; from 1 to {self._config.max_instances}"
            )

    async def pixels(
        self, signature: Signature, items: Sequence[Any], called: str
    ) -> list[np.ndarray]:
        """What the network gets of each item, uint8 `(S, S, C)`, each decoded on its own."""
        self.require_images(len(items))
        self._take(len(items))
        self._request.state.facts["images"] = len(items)
        begun = time.perf_counter()
        loop = asyncio.get_running_loop()
        decoding = [
            loop.run_in_executor(self._decoders, signature.preprocess, item) for item in items
        ]
        decoded = await asyncio.gather(*decoding, return_exceptions=True)
        self._spent("decode", time.perf_counter() - begun)
        for number, pixels in enumerate(decoded):
            if isinstance(pixels, BadInput):
                raise BadInput(f"{called.format(number)} {pixels}")
            if isinstance(pixels, BaseException):
                raise pixels
        return decoded

    def _take(self, places: int) -> None:
        self._admission.take(places - self.places)
        self.places = places

    def _spent(self, part: str, seconds: float) -> None:
        self._request.state.parts[part] = seconds
