"""What TensorBoard shows of a run beside its curves."""

from pathlib import Path

import keras
import tensorflow as tf

# Not from its `api`, which imports `tf.keras`: that fails where Ray asks for the legacy one.
from tensorboard.plugins.hparams.summary_v2 import hparams

from pipelines.command import flat
from pipelines.config import TrainConfig

MAX_IMAGES = 16


def described(folder: Path) -> bool:
    """Whether a run's folder for TensorBoard has what `describe` writes."""
    return any(folder.glob("events.*"))


def describe(folder: Path, config: TrainConfig, model: keras.Model, images: tf.Tensor) -> None:
    """Writes the config as hyperparameters, the network's graph, and what it sees.

    Args:
        folder: the run's for TensorBoard.
        config: the run's.
        model: takes uint8 images.
        images: uint8 `(B, S, S, C)`, augmented; the first few are shown.
    """
    forward = tf.function(model).get_concrete_function(
        tf.TensorSpec([None, *images.shape[1:]], images.dtype)
    )
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default(step=0):
        hparams({name: _cell(value) for name, value in flat(config).items()})
        tf.summary.image("first_batch", images, max_outputs=MAX_IMAGES)
        tf.summary.graph(forward.graph)
    writer.close()


def _cell(value: object) -> bool | int | float | str:
    """What a table of hyperparameters can hold."""
    return value if isinstance(value, bool | int | float) else str(value)
