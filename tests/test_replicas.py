"""Evaluation on two replicas, in a process of its own: devices are set before TensorFlow starts."""

import itertools
import json
import subprocess
import sys

import numpy as np
import pytest


@pytest.fixture(scope="module")
def answers():
    """Logits and the labels that are right, of 33 images: not divisible by batch or replicas."""
    random = np.random.default_rng(2)
    return {"logits": random.normal(size=(33, 6)), "right": random.random((33, 6)) < 0.2}


@pytest.fixture(scope="module")
def printed(numbered, answers, tmp_path_factory):
    """What the scenario prints: the images seen in each case, and the accuracy of the answers."""
    file = tmp_path_factory.mktemp("replicas") / "answers.npz"
    np.savez(file, **answers)
    done = subprocess.run(
        [sys.executable, "-m", "tests.replicas_scenario", numbered, file],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_two_replicas_of_each_worker_see_every_image_once(printed):
    images_seen, _ = printed
    cases = [tuple(case) for *case, _ in images_seen]
    assert sorted(cases) == list(itertools.product((1, 7, 255, 256, 257), (1, 3, 64), (1, 2)))
    for n, *case, seen in images_seen:
        assert sorted(seen) == list(range(n)), (n, *case)


def test_two_replicas_count_real_labels_as_one_does(printed, answers):
    _, accuracy = printed
    logits, right = answers["logits"], answers["right"]
    n, correct = right.any(axis=1).sum(), right[np.arange(33), logits.argmax(axis=1)].sum()
    assert 0 < correct < n < 33
    assert accuracy == {"n": n, "top1": correct / n}
