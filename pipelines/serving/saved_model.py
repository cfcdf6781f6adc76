"""The export stage: a SavedModel that takes image files and answers with labels.

`tf.saved_model.load` is all that a client needs. The preprocessing inside is `evaluation_image`,
the function that evaluation calls.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

import keras
import numpy as np
import tensorflow as tf

from keras_zoo import InputSpec
from pipelines import atomic
from pipelines.config import ExportConfig, TrainConfig
from pipelines.data.images import central_square, evaluation_image
from pipelines.data.streams import encoded_images, evaluation_stream, open_dataset
from pipelines.errors import Failed
from pipelines.training.checkpoints import model_sha256
from pipelines.training.run import Run

RECORD = Path("assets.extra") / "export.json"
TOLERANCE = 1e-4
VERIFIED_IMAGES = 256


@dataclass(frozen=True)
class Export:
    """What `export` wrote, and how it was verified.

    `largest_difference` is the largest absolute difference between a probability that the
    SavedModel gives for a file's bytes and the one that the trained model gives in evaluation.
    """

    saved_model: str
    run: str
    checkpoint_sha256: str
    top_k: int
    verified_images: int
    largest_difference: float

    def __str__(self) -> str:
        return (
            f"{self.saved_model}: equal to {self.run} on {self.verified_images} validation "
            f"images (same classes, probabilities within {self.largest_difference:.1e})\n"
            f"next: python -m pipelines.serve {quote(str(Path(self.saved_model).parent.parent))}"
        )


def export(config: ExportConfig) -> Export:
    """Writes the newest checkpoint of a run as the model's next version, verified first.

    The version appears when it is whole and its answers to validation images equal the trained
    model's. If the latest version is of the same checkpoint, nothing is written.

    Raises:
        BadInput: no run, no checkpoint, or no data set to verify with.
    """
    run = Run.open(config.run)
    trained, names = run.config(), run.class_names()
    model = run.classifier(config.checkpoint)
    top_k = min(config.top_k, len(names))
    sha256 = model_sha256(run.checkpoint(config.checkpoint))
    latest = latest_version(config.out)
    made = _recorded(latest) if latest else None
    if made and (made.run, made.checkpoint_sha256, made.top_k) == (str(config.run), sha256, top_k):
        return made
    version = config.out / str(int(latest.name) + 1 if latest else 1)
    with atomic.replacing(version) as partial:
        _save(model, trained.input, names, top_k, partial)
        count, difference = _verify(partial, model, trained)
        result = Export(str(version), str(config.run), sha256, top_k, count, difference)
        (partial / RECORD).parent.mkdir()
        (partial / RECORD).write_text(json.dumps(dataclasses.asdict(result), indent=2))
    return result


def latest_version(model_folder: Path) -> Path | None:
    """The folder of the highest version number, as TensorFlow Serving chooses; None without."""
    versions = [path for path in model_folder.glob("*") if path.name.isdecimal() and path.is_dir()]
    return max(versions, key=lambda path: int(path.name), default=None)


def _recorded(version: Path) -> Export | None:
    record = version / RECORD
    return Export(**json.loads(record.read_text())) if record.is_file() else None


def _save(
    model: keras.Model, spec: InputSpec, class_names: list[str], top_k: int, folder: Path
) -> None:
    """Writes the SavedModel.

    Signatures, each giving `classes` (string), `class_ids` (int32) and `probabilities` (float32),
    `(B, top_k)`, the most probable first:
    - `serving_default`: `image_bytes`, string `(B,)`: JPEG, PNG, GIF, BMP or WebP of any size;
    - `image_tensor`: `images`, float32 `(B, H, W, C)` in [0, 255], of any one size.
    """
    labels = tf.constant(class_names)

    def answer(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities = tf.nn.softmax(model(pixels, training=False))
        values, ids = tf.math.top_k(probabilities, top_k)
        return {"classes": tf.gather(labels, ids), "class_ids": ids, "probabilities": values}

    square = tf.TensorSpec(spec.shape, tf.uint8)

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="image_bytes")])
    def from_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return answer(
            tf.map_fn(lambda b: evaluation_image(b, spec), image_bytes, fn_output_signature=square)
        )

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, None, None, spec.num_channels), tf.float32, name="images")
        ]
    )
    def from_tensor(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return answer(
            tf.map_fn(lambda i: central_square(i, spec), images, fn_output_signature=square)
        )

    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]
    tf.saved_model.save(
        module, folder, signatures={"serving_default": from_bytes, "image_tensor": from_tensor}
    )


def _verify(folder: Path, model: keras.Model, trained: TrainConfig) -> tuple[int, float]:
    """Compares the SavedModel's answers with the model's on validation images.

    Returns:
        How many images, and the largest difference of a probability.

    Raises:
        Failed: another class is most probable, or a probability differs by more than 1e-4 or is
            no number.
    """
    dataset = open_dataset(trained.data)
    answer = tf.saved_model.load(folder).signatures["serving_default"]
    count, largest = 0, 0.0
    batches = VERIFIED_IMAGES // 32
    split = trained.validation_split
    stream = evaluation_stream(dataset, split, trained.input, batch_size=32).take(batches)
    files = encoded_images(dataset, split).batch(32).take(batches)
    for (pixels, _, mask), encoded in zip(stream, files, strict=True):
        expected = tf.nn.softmax(model(pixels, training=False)).numpy()[mask]
        given = answer(image_bytes=encoded)
        ids = given["class_ids"].numpy()
        difference = np.abs(
            np.take_along_axis(expected, ids, axis=1) - given["probabilities"].numpy()
        )
        count, largest = count + len(ids), max(largest, float(difference.max()))
        same_class = (ids[:, 0] == expected.argmax(axis=1)).all()
        # Written so that a NaN fails.
        if not (same_class and (difference <= TOLERANCE).all()):
            raise Failed(
                f"the SavedModel in {folder} does not answer as the trained model does "
                f"(largest difference {difference.max():.1e}); it was not published"
            )
    return count, largest
