"""Exact top-1 and top-5."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from shlex import quote

import keras
import tensorflow as tf

from pipelines.config import EvaluateConfig
from pipelines.data.streams import class_names, evaluation_stream, num_images, open_dataset
from pipelines.errors import BadInput
from pipelines.evaluation.real_labels import RealAccuracy, measure_real, with_real_labels
from pipelines.training.model import predictions
from pipelines.training.run import Run


@dataclass(frozen=True)
class Accuracy:
    """Counts over a split: images, and those whose label is first, or among the first five."""

    n: int
    top1_correct: int
    top5_correct: int
    loss: float

    @property
    def top1(self) -> float:
        return self.top1_correct / self.n

    @property
    def top5(self) -> float:
        return self.top5_correct / self.n


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` measured, and on what."""

    run: str
    checkpoint: str
    data: str
    split: str
    n: int
    top1: float
    top5: float
    loss: float
    real: RealAccuracy | None = None

    def __str__(self) -> str:
        real = f"{self.real}\n" if self.real else ""
        return (
            f"{self.run}, its {self.checkpoint} checkpoint, on {self.split} of {self.data}: "
            f"top-1 {self.top1:.4f}, top-5 {self.top5:.4f}, loss {self.loss:.4f}, n = {self.n:,}\n"
            f"{real}next: python -m pipelines.export {quote(self.run)} --out saved_models/NAME "
            f"--checkpoint {self.checkpoint}"
        )


CountingStep = Callable[..., list[tf.Tensor]]


def measure(model: keras.Model, stream: tf.data.Dataset) -> Accuracy:
    """Counts right answers over an evaluation stream, on all devices of the current strategy.

    Args:
        model: uint8 images -> logits.
        stream: batches of `evaluation_stream`; images whose mask is False do not count.

    Returns:
        Whole counts, so that they do not depend on the batch size or on the number of devices;
        ties are broken against the label. The loss is the mean cross-entropy, without smoothing.
    """
    distributed = tf.distribute.get_strategy().experimental_distribute_dataset(stream)
    return count(counting_step(model), distributed)


def counting_step(model: keras.Model) -> CountingStep:
    """One batch of `measure` as a compiled function: to be made once for a model."""
    strategy = tf.distribute.get_strategy()

    def one_replica(images: tf.Tensor, labels: tf.Tensor, mask: tf.Tensor) -> tuple:
        logits = predictions(model, images)
        own = tf.gather(logits, labels, axis=1, batch_dims=1)[:, tf.newaxis]
        above = tf.reduce_sum(tf.cast(logits >= own, tf.int64), axis=1)
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        return (
            tf.math.count_nonzero(mask),
            tf.math.count_nonzero(mask & (above == 1)),
            tf.math.count_nonzero(mask & (above >= 1) & (above <= 5)),
            tf.reduce_sum(tf.where(mask, tf.cast(loss, tf.float64), 0)),
        )

    @tf.function(reduce_retracing=True)
    def step(images: tf.Tensor, labels: tf.Tensor, mask: tf.Tensor) -> list[tf.Tensor]:
        counts = strategy.run(one_replica, args=(images, labels, mask))
        return [strategy.reduce("SUM", count, axis=None) for count in counts]

    return step


def count(step: CountingStep, batches: Iterable[tuple]) -> Accuracy:
    """Adds up the counts of every batch of an evaluation stream, as the strategy spreads it."""
    totals = [0, 0, 0, 0.0]
    for batch in batches:
        totals = [total + part.numpy() for total, part in zip(totals, step(*batch), strict=True)]
    n, top1, top5, loss = totals
    return Accuracy(int(n), int(top1), int(top5), float(loss) / int(n))


def evaluate(config: EvaluateConfig) -> Evaluation:
    """Measures the newest checkpoint of a run over every image of a split.

    Raises:
        BadInput: no run, no data, no such split, data of other classes, or ReaL labels that are
            none or are for other images.
    """
    run = Run.open(config.run)
    trained = run.config()
    dataset = open_dataset(config.data or trained.data)
    split = config.split or trained.validation_split
    num_images(dataset, split)
    run.require_classes(class_names(dataset), str(dataset.data_dir))
    if config.crops > 1 and trained.input.crop_fraction == 1:
        raise BadInput(
            f"crops is {config.crops} and the run's input.crop_fraction is 1: all of them would be "
            "the same; leave crops out"
        )
    images = evaluation_stream(dataset, split, trained.input, config.batch_size, config.crops)
    real = config.real_labels and with_real_labels(images, dataset, split, config.real_labels)
    classifier = run.classifier(config.checkpoint)
    accuracy = measure(classifier, images)
    return Evaluation(
        run=str(config.run),
        checkpoint=config.checkpoint,
        data=str(dataset.data_dir),
        split=split,
        n=accuracy.n,
        top1=accuracy.top1,
        top5=accuracy.top5,
        loss=accuracy.loss,
        real=real and measure_real(classifier, real),
    )
