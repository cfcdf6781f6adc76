"""One device, several and several processes train the same network."""

import functools
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
def result(digits, workplace):
    """What the scenario gives on some devices, each time in processes of its own."""
    python = sys.executable
    commands = {
        "one device": [python, *SCENARIO, digits, "1"],
        "two devices": [python, *SCENARIO, digits, "2"],
        "four devices": [python, *SCENARIO, digits, "4"],
        "two workers": isolated([python, "-c", TWO_WORKERS, *SCENARIO, digits, "1"]),
    }

    @functools.cache
    def of(devices):
        out = workplace / f"{devices}.npz"
        done = subprocess.run([*commands[devices], out], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        with np.load(out) as arrays:
            return dict(arrays)

    return of


@pytest.mark.parametrize(
    ("devices", "replicas"),
    [
        ("two devices", 2),
        pytest.param("four devices", 4, marks=pytest.mark.slow),
        ("two workers", 2),
    ],
)
def test_many_replicas_equal_one(result, devices, replicas):
    """Losses, counts, gradients and weights: clipped, accumulated and averaged."""
    one, many = result("one device"), result(devices)
    assert (one["replicas"], many["replicas"]) == (1, replicas)
    assert one.keys() == many.keys()
    for name in one.keys() - {"replicas"}:
        largest = np.abs(one[name]).max()
        np.testing.assert_allclose(many[name], one[name], rtol=0, atol=1e-5 * largest, err_msg=name)
    # The last batch of the evaluation is a ragged one.
    for case in ("without", "with"):
        assert many[f"{case} batch normalisation/counts"][0] == 356
