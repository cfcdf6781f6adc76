"""Time to build ResNet-50: ours against `keras.applications.ResNet50(weights=None)`.

    python benchmarks/build.py

Both are built in turn in one process, fresh weights included; prints the medians and their ratio.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable

import keras

from keras_zoo import build

BUILDERS: dict[str, Callable[[], keras.Model]] = {
    "keras_zoo resnet50": lambda: build("resnet50"),
    "keras_zoo resnet50_v1": lambda: build("resnet50_v1"),
    "keras.applications ResNet50": lambda: keras.applications.ResNet50(weights=None),
}


def seconds(builder: Callable[[], keras.Model]) -> float:
    keras.utils.clear_session()
    start = time.perf_counter()
    builder()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5, help="builds a median is taken of")
    args = parser.parse_args()
    for builder in BUILDERS.values():
        seconds(builder)
    times = {name: [] for name in BUILDERS}
    for _ in range(args.repeats):
        for name, builder in BUILDERS.items():
            times[name].append(seconds(builder))
    print(
        f"{os.cpu_count()} CPUs, {platform.machine()}, {keras.backend.backend()}, "
        f"keras {keras.__version__}, median of {args.repeats}"
    )
    reference = statistics.median(times["keras.applications ResNet50"])
    for name, found in times.items():
        median = statistics.median(found)
        print(f"{name:<30}{median:>7.2f} s{median / reference:>7.2f} x")


if __name__ == "__main__":
    main()
