"""What every peer does: a measurement for each line that it is sent.

Arguments: the folder of class folders, the prepared data set, images to time, a file of crops.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from resource import getpagesize

import numpy as np

BATCH = 128
SIZE = 224
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
# More than any of them holds ready: what was prepared before the clock starts does not count.
DRAINED_BATCHES = 16


def folder() -> Path:
    """The photographs, in class folders."""
    return Path(sys.argv[1])


def prepared() -> Path:
    """The same photographs as a TFDS data set."""
    return Path(sys.argv[2])


def serve(batches: Iterable, resize: Callable[[np.ndarray], np.ndarray] | None) -> None:
    """Says when the first batch was there, what memory it took and the resize's PSNR, and then
    the time of each pass.

    Args:
        batches: endless, of `BATCH` images.
        resize: uint8 `(H, W, 3)` -> `(SIZE, SIZE, 3)`, as the pipeline resizes a crop; None
            where it is not the crop that is resized.
    """
    before_mib = resident_mib()
    iterator = iter(batches)
    next(iterator)
    ready = {"first_batch_at_s": time.time(), "grown_mib": resident_mib() - before_mib}
    say(ready | {"psnr_db": psnr_db(resize) if resize else None})
    for _ in sys.stdin:
        for _ in range(DRAINED_BATCHES):
            next(iterator)
        began, cpu = time.perf_counter(), time.process_time()
        for _ in range(int(sys.argv[3]) // BATCH):
            next(iterator)
        say({"wall_s": time.perf_counter() - began, "cpu_s": time.process_time() - cpu})


def say(answer: dict) -> None:
    """One line of JSON."""
    print(json.dumps(answer), flush=True)


def resident_mib() -> float:
    """Memory of this process that is in RAM."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * getpagesize() / 2**20


def psnr_db(resize: Callable[[np.ndarray], np.ndarray]) -> float:
    """The median over the crops, against Pillow's antialiased bilinear."""
    crops = np.load(sys.argv[4])
    values = []
    for number in range(len(crops.files) // 2):
        ours = np.asarray(resize(crops[f"crop{number}"]), np.float64)
        error = np.mean((np.clip(np.rint(ours), 0, 255) - crops[f"pillow{number}"]) ** 2)
        values.append(10 * np.log10(255**2 / max(error, 1e-4)))
    return float(np.median(values))
