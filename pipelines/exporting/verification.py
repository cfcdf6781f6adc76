"""Whether an exported model answers as the trained one does, on real images."""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from pipelines.errors import Failed
from pipelines.exporting import fresh_process
from pipelines.exporting.saved_model import with_features
from pipelines.exporting.sources import Images
from pipelines.training.children import bound

TOLERANCE = 1e-4
BATCH_SIZE = 32


class Expected(NamedTuple):
    """What the trained model says of some images.

    Args:
        probabilities: float32 `(N, num_classes)`.
        features: float32 `(N, D)`.
    """

    probabilities: np.ndarray
    features: np.ndarray


class Verification(NamedTuple):
    """How an exported model compares with the trained one.

    Args:
        images: how many were compared.
        largest_difference: of a probability, in absolute value.
        agreement: share of the images whose most probable class is the same.
    """

    images: int
    largest_difference: float
    agreement: float


def expected(model: keras.Model, images: Images) -> Expected:
    """What an `image_classifier` says, layer for layer as it was trained."""
    outputs = with_features(model)

    @tf.function
    def answer(pixels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        features, logits = outputs(pixels, training=False)
        return tf.nn.softmax(logits), features

    batches = tf.data.Dataset.from_tensor_slices(images.pixels).batch(BATCH_SIZE)
    probabilities, features = zip(*(answer(batch) for batch in batches), strict=True)
    return Expected(np.concatenate(probabilities), np.concatenate(features))


def verify_saved_model(version: Path, images: Images, trained: Expected) -> Verification:
    """Loads a SavedModel in a process that imports tensorflow alone, and asks it for the images.

    Raises:
        Failed: it cannot be loaded there, or another class is most probable, or a probability or
            a feature differs by more than 1e-4 (of the largest, where that is above 1) or is no
            number.
    """
    with tempfile.TemporaryDirectory() as scratch:
        files, answers = Path(scratch, "images.tfrecord"), Path(scratch, "answers.npz")
        with tf.io.TFRecordWriter(str(files)) as file:
            for encoded in images.encoded:
                file.write(encoded)
        command = [sys.executable, "-I", fresh_process.__file__, version, files, answers]
        done = subprocess.run(bound(command), capture_output=True, text=True)
        if done.returncode:
            reason = done.stderr.strip().rpartition("\n")[2]
            raise Failed(f"the SavedModel in {version} cannot be used ({reason})")
        with np.load(answers) as answer:
            ids, probabilities, features = (
                answer[name] for name in ("class_ids", "probabilities", "features")
            )
    scale = max(1.0, np.abs(trained.features).max())
    differences = np.concatenate(
        [
            np.take_along_axis(trained.probabilities, ids, axis=1) - probabilities,
            (trained.features - features) / scale,
        ],
        axis=1,
    )
    best = trained.probabilities.max(axis=1)
    # How far the class that the exported model puts first is behind the trained model's first.
    behind = best - np.take_along_axis(trained.probabilities, ids[:, :1], axis=1)[:, 0]
    largest = float(np.abs(differences).max())
    # Written so that a NaN fails.
    if not (largest <= TOLERANCE and (behind <= 2 * TOLERANCE).all()):
        raise Failed(
            f"the SavedModel in {version} does not answer as the trained model does "
            f"(largest difference {largest:.1e}); it was not published"
        )
    agreement = float((ids[:, 0] == trained.probabilities.argmax(axis=1)).mean())
    return Verification(len(ids), largest, agreement)
