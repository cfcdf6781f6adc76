"""The most probable classes of a person's own images."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_zoo import InputSpec
from pipelines import atomic
from pipelines.config import PredictConfig
from pipelines.data.images import evaluation_image, hush_transposing
from pipelines.data.sources import BESIDE_IMAGES
from pipelines.errors import BadInput
from pipelines.evaluation.classifiers import open_classifier
from pipelines.reporting.heat import heat_over

BATCH_SIZE = 32
STANDARD_INPUT = "-"
PICTURE_PX = 320


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of an image, the first one first, and its explanation's file."""

    image: str
    classes: list[str]
    class_ids: list[int]
    probabilities: list[float]
    explanation: str | None = None

    def __str__(self) -> str:
        answers = zip(self.probabilities, self.classes, strict=True)
        lines = [self.image, *(f"  {share:7.2%}  {name}" for share, name in answers)]
        return "\n".join([*lines, f"  {self.explanation}"] if self.explanation else lines)


@dataclass(frozen=True)
class Unreadable:
    """An image that has no answer, and why."""

    image: str
    reason: str

    def __str__(self) -> str:
        return f"{self.image}\n  {self.reason}"


@dataclass(frozen=True)
class Predictions:
    """What a model says of images."""

    model: str
    predictions: list[Prediction]
    unreadable: list[Unreadable]

    def __str__(self) -> str:
        return "\n".join(map(str, [*self.predictions, *self.unreadable]))

    @property
    def failure(self) -> str:
        """One line about what has no answer; empty where all have one."""
        if not self.unreadable:
            return ""
        images = len(self.predictions) + len(self.unreadable)
        first = self.unreadable[0]
        return (
            f"{len(self.unreadable):,} of {images:,} could not be read, {first.image} first: "
            f"{first.reason}"
        )


def predict(config: PredictConfig) -> Predictions:
    """Answers for each image that can be read, and tells those that cannot.

    Raises:
        BadInput: no such model, or a folder without images.
    """
    classifier = open_classifier(config)
    network = classifier.network(classifier.input)
    explain = config.explain and classifier.explainer()
    names = classifier.class_names
    unreadable: list[Unreadable] = []
    readable = _readable(config.images, classifier.input, unreadable)
    predictions = []
    while batch := list(islice(readable, BATCH_SIZE)):
        probabilities = network(np.stack([pixels for _, pixels in batch]))
        ids = np.argsort(-probabilities, axis=1, kind="stable")[:, : config.top_k]
        shares = np.take_along_axis(probabilities, ids, axis=1)
        answered = [
            Prediction(image, [names[number] for number in row], row.tolist(), share.tolist())
            for (image, _), row, share in zip(batch, ids, shares, strict=True)
        ]
        if config.explain:
            heat = explain(np.stack([pixels for _, pixels in batch]), np.int32(ids[:, 0])).numpy()
            answered = [
                _explained(prediction, len(predictions) + number, pixels, each, config.explain)
                for number, (prediction, (_, pixels), each) in enumerate(
                    zip(answered, batch, heat, strict=True), start=1
                )
            ]
        predictions += answered
    return Predictions(classifier.title, predictions, unreadable)


def _explained(
    prediction: Prediction, number: int, pixels: np.ndarray, heat: np.ndarray, folder: Path
) -> Prediction:
    """Writes the picture of an image under its heat; numbers tell images of one name apart."""
    file = folder / f"{number:04d}_{Path(prediction.image).stem.replace(' ', '_')}.png"
    with atomic.replacing(file) as partial:
        heat_over(pixels, heat).resize((PICTURE_PX, PICTURE_PX)).save(partial)
    return replace(prediction, explanation=str(file))


def _readable(
    named: list[str], spec: InputSpec, unreadable: list[Unreadable]
) -> Iterator[tuple[str, np.ndarray]]:
    """Images by what they are called, as a network sees them: uint8 `(S, S, C)`.

    Those that cannot be read are added to `unreadable`.
    """
    hush_transposing()
    see = tf.function(
        lambda encoded: evaluation_image(encoded, spec),
        input_signature=[tf.TensorSpec((), tf.string)],
    )
    for image, read in _files(named):
        try:
            yield image, see(tf.constant(read())).numpy()
        except OSError as error:
            unreadable.append(Unreadable(image, error.strerror))
        except tf.errors.InvalidArgumentError:
            reason = "not a JPEG, PNG, GIF, BMP or WebP image that can be decoded"
            unreadable.append(Unreadable(image, reason))


def _files(named: list[str]) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """What images are called, and how they are read: a folder's are all that lie below it."""
    for name in named:
        path = Path(name)
        if name == STANDARD_INPUT:
            yield "standard input", sys.stdin.buffer.read
        elif path.is_dir():
            files = [file for file in sorted(path.rglob("*")) if _may_be_an_image(file)]
            if not files:
                raise BadInput(f"no images in the folder {name!r}")
            yield from ((str(file), file.read_bytes) for file in files)
        else:
            yield name, path.read_bytes


def _may_be_an_image(path: Path) -> bool:
    """Whether a person may take what lies in a folder for an image."""
    beside = path.name.startswith(".") or path.suffix.lower() in BESIDE_IMAGES
    return path.is_file() and not beside
