"""The network alone, in a process: `python bare.py VERSION --batch 8 --seconds 10`.

Calls the SavedModel's `classify` on batches of pixels in memory. Waits for a line before each pass,
and answers with images a second.
"""

import argparse
import json
import sys
import time

import numpy as np
import tensorflow as tf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("version")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10)
    arguments = parser.parse_args()
    (classify,) = tf.saved_model.load(arguments.version).classify.concrete_functions
    shape = classify.structured_input_signature[0][0].shape[1:]
    pixels = np.random.default_rng(0).integers(0, 256, (arguments.batch, *shape), np.uint8)
    for _ in range(3):
        classify(tf.constant(pixels)).numpy()
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        begun, images = time.monotonic(), 0
        while time.monotonic() < begun + arguments.seconds:
            classify(tf.constant(pixels)).numpy()
            images += arguments.batch
        print(json.dumps({"answered_per_s": images / (time.monotonic() - begun)}), flush=True)


if __name__ == "__main__":
    main()
