"""One device, several and several processes train the same network."""

import subprocess
import sys

import numpy as np
import pytest

from tests.isolation import isolated

TWO_WORKERS = (
    "import sys\n"
    "from pipelines.training.launcher import run_workers\n"
    "run_workers([sys.executable, *sys.argv[1:]], 2)"
)
SCENARIO = ["-m", "tests.training_scenario"]


@pytest.fixture(scope="module")
def results(digits, workplace):
    """What the scenario gives on one device, two, four, and on two workers; one after another."""

    def result(name, command):
        out = workplace / f"{name}.npz"
        done = subprocess.run([*command, out], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        with np.load(out) as arrays:
            return dict(arrays)

    python = sys.executable
    return {
        "one device": result("one", [python, *SCENARIO, digits, "1"]),
        "two devices": result("two", [python, *SCENARIO, digits, "2"]),
        "four devices": result("four", [python, *SCENARIO, digits, "4"]),
        "two workers": result(
            "workers", isolated([python, "-c", TWO_WORKERS, *SCENARIO, digits, "1"])
        ),
    }


@pytest.mark.parametrize(
    ("devices", "replicas"), [("two devices", 2), ("four devices", 4), ("two workers", 2)]
)
def test_many_replicas_equal_one(results, devices, replicas):
    """Losses, counts, gradients and weights, clipped, accumulated and averaged."""
    one, many = results["one device"], results[devices]
    assert (one["replicas"], many["replicas"]) == (1, replicas)
    assert one.keys() == many.keys()
    for name in one.keys() - {"replicas"}:
        expected = one[name]
        largest = np.abs(expected).max()
        np.testing.assert_allclose(many[name], expected, rtol=0, atol=1e-5 * largest, err_msg=name)


def test_every_image_counts_once_in_a_ragged_evaluation(results):
    for of_devices in results.values():
        for case in ("without", "with"):
            assert of_devices[f"{case} batch normalisation/counts"][0] == 356
