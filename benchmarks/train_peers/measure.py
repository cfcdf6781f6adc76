"""What every peer does: some training steps for each line that it is sent.

Arguments: a network's name, images a step, steps a pass, side of the images in pixels.
"""

import json
import resource
import sys
import time
from collections.abc import Callable

import numpy as np

CLASSES = 1000
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)


def network() -> str:
    """The zoo's name of the network."""
    return sys.argv[1]


def batch() -> tuple[np.ndarray, np.ndarray]:
    """One batch: uint8 `(B, S, S, 3)` and int64 labels `(B,)`."""
    rng = np.random.default_rng(0)
    images, size_px = int(sys.argv[2]), int(sys.argv[4])
    pixels = rng.integers(0, 256, (images, size_px, size_px, 3), np.uint8)
    return pixels, rng.integers(0, CLASSES, images)


def host_peak_mib() -> float:
    """The most memory that this process had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def serve(train: Callable[[int], object], peak_mib: Callable[[], float] = host_peak_mib) -> None:
    """Says when two steps are done, then the time of each pass and the memory at its peak.

    Args:
        train: trains for so many steps, to their end.
        peak_mib: the device's memory at its peak.
    """
    train(2)
    say({})
    for _ in sys.stdin:
        began = time.perf_counter()
        train(int(sys.argv[3]))
        passed_s = time.perf_counter() - began
        say({"wall_s": passed_s, "peak_mib": peak_mib()})


def say(answer: dict[str, float]) -> None:
    """One line of JSON."""
    print(json.dumps(answer), flush=True)
