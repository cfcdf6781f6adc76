"""What a SavedModel answers where nothing is imported but tensorflow: a program of its own.

    python -I fresh_process.py SAVED_MODEL IMAGES ANSWERS

IMAGES is a TFRecord file of encoded images; ANSWERS, an `.npz`, gets `classes`, `class_ids`,
`probabilities` and `features`, a row an image; `explanation` `(1, h, w)`, of the first; and the
probabilities of noise given `as_tensor` and `as_file`, which are the same picture.
"""

import sys

import numpy as np
import tensorflow as tf

BATCH_SIZE = 32


def main(saved_model: str, images: str, answers: str) -> None:
    loaded = tf.saved_model.load(saved_model)
    signatures = loaded.signatures
    columns = {"classes": [], "class_ids": [], "probabilities": [], "features": []}
    for batch in tf.data.TFRecordDataset(images).batch(BATCH_SIZE):
        answer = signatures["serving_default"](image_bytes=batch)
        answer |= signatures["features"](image_bytes=batch)
        for name, rows in columns.items():
            rows.append(answer[name].numpy())
    given = {name: np.concatenate(rows) for name, rows in columns.items()}
    # An array of Python's own bytes would be pickled.
    given["classes"] = given["classes"].astype(bytes)
    first = next(iter(tf.data.TFRecordDataset(images)))
    pixels = loaded.preprocess(first)[tf.newaxis]
    given["explanation"] = loaded.explain(pixels, given["class_ids"][:1, 0]).numpy()
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    tensor, file = tf.constant(noise[np.newaxis]), tf.io.encode_png(noise)[tf.newaxis]
    as_tensor = signatures["image_tensor"](images=tensor)
    as_file = signatures["serving_default"](image_bytes=file)
    given["as_tensor"] = as_tensor["probabilities"].numpy()
    given["as_file"] = as_file["probabilities"].numpy()
    np.savez(answers, **given)


if __name__ == "__main__":
    main(*sys.argv[1:])
