"""What is minimised, example by example."""

from collections.abc import Callable

import keras
import tensorflow as tf

from pipelines.config import TrainConfig
from pipelines.training.model import Outputs

# A class with a larger share of a mixed label than this is in the image.
PRESENT_SHARE = 0.2


def present(labels: tf.Tensor) -> tf.Tensor:
    """Which classes a mixed label calls present, as 0 and 1: `(B, K) -> (B, K)`.

    As in Wightman, Touvron, Jegou, "ResNet strikes back", 2021 (arXiv:2110.00476): every class that
    was mixed in is a target of its own, whatever its share, as long as it is above `PRESENT_SHARE`.
    """
    return tf.cast(labels > PRESENT_SHARE, labels.dtype)


# The target made of a label, and the loss of logits against it.
LOSSES = {
    "softmax": (tf.identity, keras.losses.categorical_crossentropy),
    "binary": (present, keras.losses.binary_crossentropy),
}


def example_losses(config: TrainConfig) -> Callable[[tf.Tensor, Outputs], tf.Tensor]:
    """The loss of each example: float32 labels `(B, K)`, outputs -> float32 `(B,)`.

    Outputs are the logits, or a list of them and those of the auxiliary heads, whose losses are
    added at `config.aux_weights`. The binary loss is the mean over the classes.
    """
    target, loss = LOSSES[config.loss]
    weights = (1.0, *config.aux_weights)

    def of_examples(labels: tf.Tensor, outputs: Outputs) -> tf.Tensor:
        every = outputs if isinstance(outputs, list | tuple) else [outputs]
        targets = (1 - config.label_smoothing) * target(labels)
        targets += config.label_smoothing / labels.shape[-1]
        return sum(
            weight * loss(targets, logits, from_logits=True)
            for weight, logits in zip(weights, every, strict=True)
        )

    return of_examples
