"""Measuring in rounds, each of them a process of its own.

Where a process's memory lies and which cores its threads get makes it faster or slower for as long
as it lives, and a machine that others share changes from one moment to the next. So a network is
measured in `ROUNDS` processes, one after the other, for a part of the time each: their medians
differ from one another as those of the command typed again would.

`noise` is the half width of a prediction interval: with a confidence of 99% the median of as many
further rounds lies within that share of this one. For n rounds with the standard deviation s it is
t(0.995, n - 1) * s * sqrt(pi / n), divided by the median; the variance of a median is pi / 2 that
of a mean (of a normal distribution, for large n), and two medians differ. It is told from these
rounds alone: a machine that is busier an hour later than in these minutes is not in it.
"""

import math
import multiprocessing
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from rich.console import Console
from scipy import stats

from pipelines.benchmarking.results import Results, Row, append, command_line, machine, results_file
from pipelines.config import BenchmarkConfig
from pipelines.data.parallel import end_with_parent, native_code_silenced
from pipelines.errors import Failed

Returned = TypeVar("Returned")

ROUNDS = 5
CONFIDENCE = 0.99
# Before a round's calls are timed.
WARM_UP_S = 0.5
WARM_UP_CALLS = 2
FEWEST_CALLS = 3


class Facts(NamedTuple):
    """What a network is, whatever it runs on.

    Args:
        parameters: as the network's card counts them.
        macs: multiply-accumulates of one image.
    """

    parameters: int
    macs: int


@dataclass(frozen=True)
class Round:
    """What one process measured.

    Args:
        images_per_s: over the whole round.
        calls_s: how long each step, call or answered request took.
        memory_mib: the most that the process held, or what that is above TensorFlow's own.
        ceiling_gflops: of a matrix product there.
        refused: requests that were; None where there are none.
    """

    images_per_s: float
    calls_s: list[float]
    memory_mib: float
    ceiling_gflops: float
    refused: int | None = None


class Subject(NamedTuple):
    """Something to measure of networks.

    Args:
        name: that of the results' file.
        prepare: (a config, a new folder) -> what the network is; leaves there what the rounds need.
            Called in a process of its own.
        measure: (the config, the folder) -> a round.
        passes: forward passes that an image costs.
    """

    name: str
    prepare: Callable[[Any, Path], Facts]
    measure: Callable[[Any, Path], Round]
    passes: int = 1


def measured(subject: Subject, configs: Sequence[BenchmarkConfig]) -> Results:
    """Measures networks one after the other, and adds a row of each to the file.

    Raises:
        BadInput: a file with other columns is there.
        Failed: a process was killed.
    """
    rows = []
    for config in configs:
        file = results_file(subject.name, config.out)
        with (
            _interruptible(),
            tempfile.TemporaryDirectory() as scratch,
            native_code_silenced(),
            Console(stderr=True).status("") as status,
        ):
            status.update(f"{config.network}: preparing")
            facts = in_new_process(subject.prepare, config, Path(scratch))
            rounds = []
            for number in range(ROUNDS):
                status.update(f"{config.network}: round {number + 1} of {ROUNDS}")
                rounds.append(subject.measure(config, Path(scratch)))
        rows.append(summed_up(subject, config, facts, rounds))
        append(rows[-1:], config.out)
    return Results(str(file), rows)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Where this process is asked to end, it takes along what it wrote for the time being."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def summed_up(
    subject: Subject, config: BenchmarkConfig, facts: Facts, rounds: Sequence[Round]
) -> Row:
    """The row that rounds come to."""
    rates = [round_.images_per_s for round_ in rounds]
    images_per_s = statistics.median(rates)
    p50_s, p99_s = np.percentile([s for round_ in rounds for s in round_.calls_s], [50, 99])
    refused = [round_.refused for round_ in rounds if round_.refused is not None]
    ceiling_gflops = max(round_.ceiling_gflops for round_ in rounds)
    gmacs = facts.macs / 1e9
    return Row(
        subject=subject.name,
        network=config.network,
        width=config.width,
        size_px=config.input.size_px,
        channels=config.input.channels,
        num_classes=config.classes,
        batch_size=config.batch_size,
        precision=config.precision,
        engine=config.engine,
        clients=config.clients,
        stage=None,
        images_per_s=images_per_s,
        noise=noise(rates),
        p50_ms=float(p50_s) * 1e3,
        p99_ms=float(p99_s) * 1e3,
        refused=sum(refused) if refused else None,
        memory_mib=max(round_.memory_mib for round_ in rounds),
        parameters=facts.parameters,
        gmacs=gmacs,
        ceiling_gflops=ceiling_gflops,
        utilisation=2 * subject.passes * gmacs * images_per_s / ceiling_gflops,
        command=command_line(subject.name, config),
        **machine(),
    )


def noise(rates: Sequence[float]) -> float:
    """How far the median of as many further rates lies from theirs at most, as a share of it."""
    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, len(rates) - 1)
    half_width = quantile * statistics.stdev(rates) * math.sqrt(math.pi / len(rates))
    return float(half_width / statistics.median(rates))


def timed(call: Callable[[], object], seconds: float) -> list[float]:
    """How many seconds each call took, one after the other, for so long; warmed up before."""
    _durations_s(call, WARM_UP_S, WARM_UP_CALLS)
    return _durations_s(call, seconds, FEWEST_CALLS)


def _durations_s(call: Callable[[], object], seconds: float, fewest: int) -> list[float]:
    durations_s: list[float] = []
    end_s = time.perf_counter() + seconds
    while len(durations_s) < fewest or time.perf_counter() < end_s:
        began_s = time.perf_counter()
        call()
        durations_s.append(time.perf_counter() - began_s)
    return durations_s


def in_new_process(function: Callable[..., Returned], *arguments: Any) -> Returned:
    """What a function gives, called in a process that then ends.

    Raises:
        Failed: the process was killed.
    """
    spawn = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, spawn, end_with_parent) as executor:
            return executor.submit(function, *arguments).result()
    except BrokenProcessPool as error:
        raise Failed(
            "a process was killed while it measured, for want of memory perhaps; a smaller "
            "--batch_size or --size_px takes less"
        ) from error
