"""What a SavedModel answers where nothing is imported but tensorflow: a program of its own.

    python -I fresh_process.py SAVED_MODEL IMAGES ANSWERS

IMAGES is a TFRecord file of encoded images; ANSWERS, an `.npz`, gets `class_ids`, `probabilities`
and `features`, a row an image.
"""

import sys

import numpy as np
import tensorflow as tf

BATCH_SIZE = 32


def main(saved_model: str, images: str, answers: str) -> None:
    signatures = tf.saved_model.load(saved_model).signatures
    columns = {"class_ids": [], "probabilities": [], "features": []}
    for batch in tf.data.TFRecordDataset(images).batch(BATCH_SIZE):
        answer = signatures["serving_default"](image_bytes=batch)
        answer |= signatures["features"](image_bytes=batch)
        for name, rows in columns.items():
            rows.append(answer[name].numpy())
    np.savez(answers, **{name: np.concatenate(rows) for name, rows in columns.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
