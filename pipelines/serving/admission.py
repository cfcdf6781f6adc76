"""What a request may take: a place, a body, images, time. Whatever protocol it speaks."""

import asyncio
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

    A request takes a place when it arrives, before its body is read, and one more for each further
    image it turns out to hold. Where none is free it is refused at once: what waits outside can go
    elsewhere.
    """

    def __init__(self, config: ServeConfig, metrics: Metrics) -> None:
        self._config = config
        self._free = config.max_in_flight
        self._metrics = metrics
        self._decoders = ThreadPoolExecutor(available_cores(), "decode")

    @asynccontextmanager
    async def admitted(self, request: Request) -> AsyncIterator["Call"]:
        """The context in which a request is worked on.

        Raises:
            HTTPException: 429, there is no place; 504, the work was not done by the deadline.
        """
        call = Call(request, self._config, self, self._decoders)
        self.take(1)
        try:
            async with asyncio.timeout(self._config.deadline_s):
                yield call
        except TimeoutError as error:
            raise HTTPException(
                504, f"not answered within {self._config.deadline_s:g} s, the server's deadline"
            ) from error
        finally:
            self.take(-call.places)

    def take(self, places: int) -> None:
        if places > self._free:
            raise HTTPException(
                429,
                f"{self._config.max_in_flight - self._free} images are in flight of at most "
                f"{self._config.max_in_flight}; try again in {RETRY_AFTER_S} s",
                {"Retry-After": str(RETRY_AFTER_S)},
            )
        self._free -= places
        self._metrics.images_in_flight.inc(places)


class Call:
    """A request that was let in.

    Attributes:
        places: how many it holds.
    """

    def __init__(
        self,
        request: Request,
        config: ServeConfig,
        admission: Admission,
        decoders: ThreadPoolExecutor,
    ) -> None:
        self.places = 1
        self._request = request
        self._config = config
        self._admission = admission
        self._decoders = decoders

    async def body(self) -> bytes:
        """The whole body.

        Raises:
            HTTPException: 413, it is larger than allowed; 408, it did not come in time.
        """
        begun = time.perf_counter()
        limit = self._config.max_body_mib * MIB
        too_large = HTTPException(413, f"the body is larger than {self._config.max_body_mib} MiB")
        if int(self._request.headers.get("content-length", 0)) > limit:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self._config.read_timeout_s):
                async for chunk in self._request.stream():
                    body += chunk
                    if len(body) > limit:
                        raise too_large
        except TimeoutError as error:
            raise HTTPException(
                408, f"the body did not come within {self._config.read_timeout_s:g} s"
            ) from error
        except ClientDisconnect as error:
            raise HTTPException(400, "the client went away before its body was whole") from error
        self._spent("read", time.perf_counter() - begun)
        return bytes(body)

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
        rows = await asyncio.gather(*map(signature.network, decoded))
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
        self._admission.take(len(items) - 1)
        self.places = len(items)
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

    def _spent(self, part: str, seconds: float) -> None:
        self._request.state.parts[part] = seconds
