"""Evaluation on two replicas, in a process of its own: devices are set before TensorFlow starts."""

import dataclasses
import itertools
import json
import subprocess
import sys

import pytest

from pipelines.config import EvaluateConfig
from pipelines.evaluation.evaluate import evaluate


@pytest.fixture(scope="module")
def printed(numbered, run):
    """What the scenario prints: the images seen in each case, and what a run is measured to."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.replicas_scenario", numbered, run],
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


def test_two_replicas_predict_what_one_does(printed, run):
    expected = evaluate(EvaluateConfig(run))
    assert expected.most_confused
    _, (sevens, sixty_fours) = printed
    for given in (sevens, sixty_fours):
        for figure in ("n", "top1", "top5"):
            assert given[figure] == getattr(expected, figure)
        assert given["loss"] == pytest.approx(expected.loss, rel=1e-5)
        assert given["calibration_error"] == pytest.approx(expected.calibration_error, abs=1e-5)
        pairs = [dataclasses.asdict(pair) for pair in expected.most_confused]
        assert given["most_confused"] == pairs
