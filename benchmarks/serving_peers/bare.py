"""The network alone, in a process: `python bare.py VERSION --engine savedmodel --batch 8`.

Calls the engine on batches of pixels in memory. Waits for a line before each pass, and answers with
images a second.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

from pipelines.exporting.card import read_card
from pipelines.exporting.engines import open_engine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("version", type=Path)
    parser.add_argument("--engine", default="savedmodel")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10)
    arguments = parser.parse_args()
    classify = open_engine(arguments.version, arguments.engine)
    seen = read_card(arguments.version)["input"]
    shape = (seen["size_px"], seen["size_px"], len(seen["mean"]))
    pixels = np.random.default_rng(0).integers(0, 256, (arguments.batch, *shape), np.uint8)
    for _ in range(3):
        classify(pixels)
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        begun, images = time.monotonic(), 0
        while time.monotonic() < begun + arguments.seconds:
            classify(pixels)
            images += arguments.batch
        print(json.dumps({"answered_per_s": images / (time.monotonic() - begun)}), flush=True)


if __name__ == "__main__":
    main()
