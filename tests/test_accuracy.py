"""Exact accuracy: against NumPy on fixed logits, and whatever the batch size."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from pipelines.config import EvaluateConfig
from pipelines.errors import BadInput
from pipelines.evaluation.accuracy import evaluate, measure
from pipelines.training.run import Run


def stream(logits, labels, mask):
    return tf.data.Dataset.from_tensor_slices((logits, labels, mask)).batch(16)


def test_counts_and_loss_are_those_of_their_definition():
    random = np.random.default_rng(0)
    logits = random.normal(size=(80, 12)).astype(np.float32)
    labels = random.integers(0, 12, 80)
    mask = random.random(80) < 0.8
    given = measure(lambda x, training: x, stream(logits, labels, mask))
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
    given = measure(lambda x, training: x, stream(logits, labels, np.ones(10, bool)))
    assert (given.top1_correct, given.top5_correct) == (0, 0)


def test_a_network_that_answers_nan_is_never_right():
    logits, labels = np.full((10, 10), np.nan, np.float32), np.arange(10)
    given = measure(lambda x, training: x, stream(logits, labels, np.ones(10, bool)))
    assert (given.top1_correct, given.top5_correct) == (0, 0)


def test_the_result_does_not_depend_on_the_batch_size(run):
    results = {
        (e.n, e.top1, e.top5)
        for e in (evaluate(EvaluateConfig(run, batch_size=size)) for size in (1, 7, 64, 1000))
    }
    metrics = Run.open(run).metrics()
    assert results == {(metrics["n"], metrics["top1"], metrics["top5"])}


def test_the_probabilities_of_crops_are_averaged():
    """A network whose logits are the first pixels of a crop."""
    draw = np.random.default_rng(0)
    crops = draw.normal(scale=3, size=(40, 10, 2, 2, 3)).astype(np.float32)
    labels = draw.integers(0, 3, 40)
    batches = tf.data.Dataset.from_tensor_slices((crops, labels, np.ones(40, bool)))
    given = measure(lambda x, training: x[:, 0, 0], batches.batch(8, drop_remainder=True))
    of_crops = np.exp(crops[:, :, 0, 0].astype(np.float64))
    averaged = (of_crops / of_crops.sum(axis=2, keepdims=True)).mean(axis=1)
    assert given.top1_correct == (averaged.argmax(axis=1) == labels).sum()
    assert given.loss == pytest.approx(-np.log(averaged[range(40), labels]).mean(), rel=1e-5)


def test_crops_that_would_all_be_the_same_are_refused(run):
    with pytest.raises(BadInput, match=r"crops is 10 and .*crop_fraction is 1"):
        evaluate(EvaluateConfig(run, crops=10))


def test_the_best_checkpoint_is_that_of_the_best_epoch(run, tmp_path):
    """In a copy whose record says that the epoch before the last was the best."""
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    file = Run.open(folder).checkpoint() / "record.json"
    record = json.loads(file.read_text())
    told = [row["val_top1"] for row in record["history"]]
    for row in record["history"][:1] + record["history"][2:]:
        row["val_top1"] = 0.0
    file.write_text(json.dumps(record))
    for which, epoch in (("newest", 3), ("best", 2)):
        measured = evaluate(EvaluateConfig(folder, checkpoint=which))
        assert measured.top1 == told[epoch - 1]
        assert f"its {which} checkpoint" in str(measured)


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(BadInput, match="no run in"):
        evaluate(EvaluateConfig(tmp_path))


def test_a_missing_split_is_named(run):
    with pytest.raises(BadInput, match="no split 'test'"):
        evaluate(EvaluateConfig(run, split="test"))
