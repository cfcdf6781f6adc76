"""Micro-batching: images of several requests go through the network in one call."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import NamedTuple

import numpy as np


class Row(NamedTuple):
    """What the network said of one item, and how long that took.

    Args:
        outputs: the item's row of the function's result.
        queue_s: how long it waited for its batch to begin.
        network_s: how long the call took that it was in.
    """

    outputs: np.ndarray
    queue_s: float
    network_s: float


class _Waiting(NamedTuple):
    inputs: tuple[np.ndarray, ...]
    since: float
    row: asyncio.Future


class Batcher:
    """Calls a function over batches with one item after another, as they come.

    A batch begins when it is full, or when its oldest item has waited long enough. While one is
    computed the next one gathers, so that under load every batch is full and nobody waits for the
    delay. Belongs to one event loop.

    Args:
        function: arrays of shape `(B, ...)`, one for each input -> an array `(B, ...)`.
        max_batch: the largest B.
        delay_s: how long the first of a batch waits for others.
        executor: where the function runs.
        observe: told the size of every batch, and how long it took in seconds.
    """

    def __init__(
        self,
        function: Callable[..., np.ndarray],
        max_batch: int,
        delay_s: float,
        executor: Executor,
        observe: Callable[[int, float], None],
    ) -> None:
        self._function = function
        self._max_batch = max_batch
        self._delay_s = delay_s
        self._executor = executor
        self._observe = observe
        self._waiting: deque[_Waiting] = deque()
        self._grown = asyncio.Event()
        self._working: asyncio.Task | None = None

    async def __call__(self, *inputs: np.ndarray) -> Row:
        """The row of one item, whose inputs have no batch dimension.

        Raises:
            Exception: what the function raised, for every item of the batch.
        """
        loop = asyncio.get_running_loop()
        item = _Waiting(inputs, loop.time(), loop.create_future())
        self._waiting.append(item)
        self._grown.set()
        if self._working is None or self._working.done():
            self._working = loop.create_task(self._work())
        return await item.row

    async def _work(self) -> None:
        while self._waiting:
            await self._until_due()
            # A request that was given up in the meantime has cancelled its item.
            waiting = [self._waiting.popleft() for _ in range(self._next_size())]
            if batch := [item for item in waiting if not item.row.done()]:
                await self._compute(batch)

    async def _until_due(self) -> None:
        """Waits until the next batch is full or its oldest item has waited for the delay."""
        loop = asyncio.get_running_loop()
        due = self._waiting[0].since + self._delay_s
        while len(self._waiting) < self._max_batch and (left_s := due - loop.time()) > 0:
            self._grown.clear()
            try:
                await asyncio.wait_for(self._grown.wait(), left_s)
            except TimeoutError:
                return

    def _next_size(self) -> int:
        return min(len(self._waiting), self._max_batch)

    async def _compute(self, batch: list[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        columns = zip(*(item.inputs for item in batch), strict=True)
        try:
            rows = await loop.run_in_executor(
                self._executor, lambda: self._function(*(np.stack(column) for column in columns))
            )
            answered = list(zip(batch, rows, strict=True))
        except Exception as error:
            for item in batch:
                if not item.row.done():
                    item.row.set_exception(error)
            return
        network_s = loop.time() - begun
        self._observe(len(batch), network_s)
        for item, outputs in answered:
            if not item.row.done():
                item.row.set_result(Row(outputs, begun - item.since, network_s))
