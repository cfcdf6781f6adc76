"""Micro-batching, with functions whose calls are recorded."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pipelines.serving.batching import Batcher


class Doubler:
    """Doubles numbers, remembers its batches, and waits for a word before the first."""

    def __init__(self) -> None:
        self.batches = []
        self.go = threading.Event()

    def __call__(self, numbers: np.ndarray) -> np.ndarray:
        self.go.wait()
        self.batches.append(numbers.tolist())
        return 2 * numbers


@pytest.fixture
def executor():
    with ThreadPoolExecutor(1) as pool:
        yield pool


def test_what_comes_while_a_batch_is_computed_makes_the_next_ones(executor):
    double, sizes = Doubler(), []
    batcher = Batcher(double, 4, 0.0, executor, lambda size, _: sizes.append(size))

    async def scenario():
        first = asyncio.create_task(batcher(np.int64(0)))
        await asyncio.sleep(0.01)
        others = [asyncio.create_task(batcher(np.int64(number))) for number in range(1, 8)]
        await asyncio.sleep(0.01)
        double.go.set()
        return await asyncio.gather(first, *others)

    rows = asyncio.run(scenario())
    assert [int(row.outputs) for row in rows] == [0, 2, 4, 6, 8, 10, 12, 14]
    assert double.batches == [[0], [1, 2, 3, 4], [5, 6, 7]]
    assert sizes == [1, 4, 3]
    assert rows[7].queue_s > rows[1].queue_s > 0


def test_a_full_batch_does_not_wait_for_the_delay(executor):
    double = Doubler()
    double.go.set()
    batcher = Batcher(double, 2, 3600.0, executor, lambda *_: None)

    async def scenario():
        return await asyncio.gather(*(batcher(np.int64(number)) for number in range(4)))

    asyncio.run(asyncio.wait_for(scenario(), 30))
    assert double.batches == [[0, 1], [2, 3]]


def test_a_batch_that_is_not_full_begins_after_the_delay(executor):
    double = Doubler()
    double.go.set()
    batcher = Batcher(double, 8, 0.05, executor, lambda *_: None)

    async def scenario():
        async def later(number):
            await asyncio.sleep(0.001 * number)
            return await batcher(np.int64(number))

        return await asyncio.gather(*map(later, range(3)))

    rows = asyncio.run(scenario())
    assert double.batches == [[0, 1, 2]]
    assert rows[0].queue_s >= 0.05


def test_who_gave_up_waiting_is_in_no_batch(executor):
    double = Doubler()
    batcher = Batcher(double, 4, 0.0, executor, lambda *_: None)

    async def scenario():
        tasks = [asyncio.create_task(batcher(np.int64(0)))]
        await asyncio.sleep(0.01)
        tasks += [asyncio.create_task(batcher(np.int64(number))) for number in (1, 2, 3)]
        await asyncio.sleep(0.01)
        tasks[2].cancel()
        await asyncio.sleep(0)
        double.go.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    rows = asyncio.run(scenario())
    assert double.batches == [[0], [1, 3]]
    assert isinstance(rows[2], asyncio.CancelledError)
    assert int(rows[3].outputs) == 6


def test_a_batch_that_fails_fails_alone(executor):
    def sometimes(numbers):
        if numbers[0] == 0:
            raise ValueError("zero")
        return numbers

    batcher = Batcher(sometimes, 2, 0.0, executor, lambda *_: None)

    async def scenario():
        tasks = [batcher(np.int64(number)) for number in (0, 1, 2, 3)]
        return await asyncio.gather(*tasks, return_exceptions=True)

    failed, also_failed, third, fourth = asyncio.run(scenario())
    assert str(failed) == str(also_failed) == "zero"
    assert (int(third.outputs), int(fourth.outputs)) == (2, 3)


def test_a_function_that_loses_rows_fails_its_batch_and_no_other(executor):
    batcher = Batcher(lambda numbers: numbers[numbers != 1], 2, 0.0, executor, lambda *_: None)

    async def scenario():
        tasks = [batcher(np.int64(number)) for number in (0, 1, 2, 3)]
        async with asyncio.timeout(30):
            return await asyncio.gather(*tasks, return_exceptions=True)

    failed, also_failed, third, fourth = asyncio.run(scenario())
    assert isinstance(failed, ValueError)
    assert isinstance(also_failed, ValueError)
    assert (int(third.outputs), int(fourth.outputs)) == (2, 3)


def test_each_of_several_inputs_is_a_batch(executor):
    batcher = Batcher(lambda a, b: a * b[:, None], 4, 0.01, executor, lambda *_: None)

    async def scenario():
        pairs = [(np.ones(3), np.int32(number)) for number in range(3)]
        return await asyncio.gather(*(batcher(*pair) for pair in pairs))

    assert [row.outputs.tolist() for row in asyncio.run(scenario())] == [
        [0.0, 0.0, 0.0],
        [1.0, 1.0, 1.0],
        [2.0, 2.0, 2.0],
    ]
