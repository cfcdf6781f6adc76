"""What every peer does: classifies some images for each line that it is sent.

Arguments: what to classify with, images at a time, images a pass, side of the images in pixels.
"""

import json
import sys
import time
from collections.abc import Callable

import numpy as np

WARM_UP_RUNS = 3


def model() -> str:
    """What to classify with."""
    return sys.argv[1]


def batch() -> np.ndarray:
    """uint8 `(B, S, S, 3)`."""
    size_px = int(sys.argv[4])
    return np.random.default_rng(0).integers(0, 256, (int(sys.argv[2]), size_px, size_px, 3), "u1")


def serve(classify: Callable[[np.ndarray], np.ndarray]) -> None:
    """Says when the first batches are done, then the time of each pass.

    Args:
        classify: gives probabilities, `(B, num_classes)`.
    """
    images = batch()
    runs = max(1, int(sys.argv[3]) // len(images))
    for _ in range(WARM_UP_RUNS):
        assert classify(images).ndim == 2
    say({})
    for _ in sys.stdin:
        # Threads and caches come back after the turns of the others.
        classify(images)
        began = time.perf_counter()
        for _ in range(runs):
            classify(images)
        say({"images": runs * len(images), "wall_s": time.perf_counter() - began})


def say(answer: dict[str, float]) -> None:
    """One line of JSON."""
    print(json.dumps(answer), flush=True)
