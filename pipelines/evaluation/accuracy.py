"""Exact top-1 and top-5 while a network is trained, on all devices of all workers."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import keras
import tensorflow as tf

from pipelines.training.model import logits_of


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


CountingStep = Callable[..., list[tf.Tensor]]


def counting_step(model: keras.Model) -> CountingStep:
    """Counts right answers in a batch of an evaluation stream; to be made once for a model.

    Images whose mask is False do not count, and ties are broken against the label. The loss is
    the cross-entropy, without smoothing.
    """
    strategy = tf.distribute.get_strategy()

    def one_replica(images: tf.Tensor, labels: tf.Tensor, mask: tf.Tensor) -> tuple:
        logits = logits_of(model(images, training=False))
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
    """Adds up the counts of every batch of an evaluation stream, as the strategy spreads it.

    Whole counts: they do not depend on the batch size or on the number of devices.
    """
    totals = [0, 0, 0, 0.0]
    for batch in batches:
        totals = [total + part.numpy() for total, part in zip(totals, step(*batch), strict=True)]
    n, top1, top5, loss = totals
    return Accuracy(int(n), int(top1), int(top5), float(loss) / int(n))
