"""Whether an exported model answers as the trained one does, on real images."""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from pipelines.errors import Failed
from pipelines.exporting import fresh_process
from pipelines.exporting.engines import open_format
from pipelines.exporting.saved_model import with_features
from pipelines.exporting.sources import Images
from pipelines.training.children import bound

TOLERANCE = 1e-4
# Of a compressed format with the trained model.
LEAST_AGREEMENT = 0.9
LARGEST_LOSS = 0.01
# A one-sided test at 5 %, of the standard normal distribution.
SURE = 1.645
WARM_UP_RUNS, TIMED_RUNS = 3, 15
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
        top1: share of the images whose most probable class is their label; None without labels.
    """

    images: int
    largest_difference: float
    agreement: float
    top1: float | None


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


def verify_saved_model(
    version: Path, images: Images, trained: Expected, class_names: list[str]
) -> Verification:
    """Loads a SavedModel in a process that imports tensorflow alone, and asks it for the images.

    Raises:
        Failed: it cannot be loaded there, or another class is most probable or has another name,
            or a probability or a feature differs by more than 1e-4 (of the largest, where that is
            above 1) or is no number; or a picture has other probabilities as a tensor than as a
            file, or an explanation outside [0, 1].
    """
    answer = _answers_elsewhere(version, images)
    scale = max(1.0, np.abs(trained.features).max())
    # Written so that a NaN fails.
    if not (np.abs(trained.features - answer["features"]) <= TOLERANCE * scale).all():
        raise Failed(f"the features of {version} are not the trained model's; not published")
    ids = answer["class_ids"]
    names = np.array([name.encode() for name in class_names])
    if (names[ids] != answer["classes"]).any():
        raise Failed(f"the classes of {version} are not called as those of the model")
    of_trained = np.take_along_axis(trained.probabilities, ids, axis=1)
    difference = np.abs(of_trained - answer["probabilities"])
    verified = _verified("savedmodel", ids[:, 0], difference, images, trained)
    if not (np.abs(answer["as_tensor"] - answer["as_file"]) <= TOLERANCE).all():
        raise Failed(f"image_tensor of {version} is not serving_default; not published")
    if not ((answer["explanation"] >= 0) & (answer["explanation"] <= 1)).all():
        raise Failed(f"the explanations of {version} are not in [0, 1]; not published")
    return verified


def verify_format(name: str, file: Path, images: Images, trained: Expected) -> Verification:
    """Asks another format for the images.

    Raises:
        BadInput: what runs it is not installed.
        Failed: a float32 format gives another class, or a probability that differs by more than
            1e-4; or a compressed one another class for more than a tenth of the images, or it
            costs top-1 too much (see `_loses`).
    """
    engine = open_format(name, file)
    batches = np.array_split(images.pixels, range(BATCH_SIZE, len(images.pixels), BATCH_SIZE))
    given = np.concatenate([engine(batch) for batch in batches])
    difference = np.abs(trained.probabilities - given)
    chosen = given.argmax(axis=1)
    if "-" in name and _loses(chosen, trained.probabilities.argmax(axis=1), images.labels):
        raise Failed(
            f"{name} has a top-1 of {(chosen == images.labels).mean():.3f}, which is surely more "
            f"than {LARGEST_LOSS} under the trained model's; nothing was published; leave it out"
        )
    return _verified(name, chosen, difference, images, trained)


def _loses(chosen: np.ndarray, of_trained: np.ndarray, labels: np.ndarray) -> bool:
    """Whether a compressed format costs more top-1 than 0.01, beyond what chance explains.

    Both models see the same images, so that only those count of which one alone is right: b that
    the format lost and c that it gained. Without any loss, b - c has a variance of b + c (McNemar
    1947, doi:10.1007/BF02295996). A loss is more than 0.01 of the n images where
    b - c > 0.01 n + 1.645 sqrt(b + c): one or two lost images are never.

    Args:
        chosen: int `(N,)`, the format's most probable classes.
        of_trained: int `(N,)`, the trained model's.
        labels: int `(N,)`.
    """
    change = (of_trained == labels).astype(int) - (chosen == labels)
    return change.sum() > LARGEST_LOSS * len(labels) + SURE * np.abs(change).sum() ** 0.5


def _verified(
    name: str, chosen: np.ndarray, difference: np.ndarray, images: Images, trained: Expected
) -> Verification:
    """Sums up what a format answered.

    Args:
        name: the format's.
        chosen: int `(N,)`, the most probable classes.
        difference: float32 `(N, K)`, how far probabilities are from the trained model's.
        images: what was asked for.
        trained: what the trained model answers.
    """
    agreement = float((chosen == trained.probabilities.argmax(axis=1)).mean())
    own = np.take_along_axis(trained.probabilities, chosen[:, np.newaxis], axis=1)[:, 0]
    # Two classes may be equally probable but for rounding.
    best = (trained.probabilities.max(axis=1) - own <= 2 * TOLERANCE).all()
    largest = float(difference.max())
    compressed = "-" in name
    # Written so that a NaN fails.
    if not (agreement >= LEAST_AGREEMENT if compressed else largest <= TOLERANCE and best):
        raise Failed(
            f"{name} does not answer as the trained model does (largest difference {largest:.1e}, "
            f"{agreement:.1%} of the classes agree); nothing was published"
        )
    top1 = None if images.labels is None else float((chosen == images.labels).mean())
    return Verification(len(chosen), largest, agreement, top1)


def _answers_elsewhere(version: Path, images: Images) -> dict[str, np.ndarray]:
    """What `fresh_process` says a SavedModel answers."""
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
            return dict(answer)


def images_per_s(name: str, file: Path, images: Images) -> float:
    """How many images a second a format takes on this machine, one at a time: a median."""
    engine = open_format(name, file)
    one = images.pixels[:1]
    times_s = []
    for _ in range(WARM_UP_RUNS + TIMED_RUNS):
        began = time.perf_counter()
        engine(one)
        times_s.append(time.perf_counter() - began)
    return 1 / statistics.median(times_s[WARM_UP_RUNS:])
