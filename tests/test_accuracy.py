"""What training counts after an epoch: against NumPy on fixed logits."""

import numpy as np
import pytest
import tensorflow as tf

from pipelines.evaluation.accuracy import count, counting_step


def counted(logits, labels, mask):
    batches = tf.data.Dataset.from_tensor_slices((logits, labels, mask)).batch(16)
    return count(counting_step(lambda x, training: x), batches)


def test_counts_and_loss_are_those_of_their_definition():
    random = np.random.default_rng(0)
    logits = random.normal(size=(80, 12)).astype(np.float32)
    labels = random.integers(0, 12, 80)
    mask = random.random(80) < 0.8
    given = counted(logits, labels, mask)
    order = np.argsort(-logits, axis=1)[mask]
    ranks = np.argmax(order == labels[mask, None], axis=1)
    wide = logits[mask].astype(np.float64)
    log_sum = np.log(np.exp(wide).sum(axis=1))
    loss = np.mean(log_sum - wide[np.arange(len(wide)), labels[mask]])
    assert (given.n, given.top1_correct) == (mask.sum(), (ranks == 0).sum())
    assert given.top5_correct == (ranks < 5).sum()
    assert given.loss == pytest.approx(loss, rel=1e-6)


def test_a_constant_network_earns_nothing_from_ties():
    logits, labels = np.zeros((10, 10), np.float32), np.arange(10)
    given = counted(logits, labels, np.ones(10, bool))
    assert (given.top1_correct, given.top5_correct) == (0, 0)


def test_a_network_that_answers_nan_is_never_right():
    logits, labels = np.full((10, 10), np.nan, np.float32), np.arange(10)
    given = counted(logits, labels, np.ones(10, bool))
    assert (given.top1_correct, given.top5_correct) == (0, 0)
