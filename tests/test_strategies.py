"""One device, several and several processes train the same network."""

import faulthandler
import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipelines.errors import BadInput
from pipelines.training.strategy import choose_distribution
from tests.conftest import digits_config
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


TWO = {"worker": ["a:1", "b:1"]}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("garbage", "JSONDecodeError"),
        ("[1]", "AttributeError"),
        (json.dumps({"cluster": TWO}), "KeyError: 'task'"),
        (json.dumps({"cluster": TWO, "task": {"type": "worker", "index": "x"}}), "'x'"),
        (json.dumps({"cluster": {"worker": ["a:1", "b"]}, "task": {}}), "has 'b'; HOST:PORT"),
        (json.dumps({"cluster": {"worker": ["a:1"] * 2}, "task": {}}), "has 'a:1' twice"),
        (json.dumps({"cluster": TWO, "task": {"type": "worker", "index": 2}}), "number 2"),
        (json.dumps({"cluster": TWO, "task": {"type": "ps", "index": 0}}), "'ps' number 0"),
    ],
)
def test_a_tf_config_that_no_worker_can_use_is_refused(given, told, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", given)
    with pytest.raises(BadInput, match=f"TF_CONFIG .*{told}"):
        choose_distribution(digits_config(Path("unused"), Path("unused")))


@pytest.mark.parametrize(
    "given",
    [
        {"environment": "cloud", "task": {"type": "worker", "index": 0}},
        {"cluster": {"chief": ["a:1"]}, "task": {"type": "chief", "index": "0"}},
    ],
)
def test_a_tf_config_of_one_machine_trains_alone(given, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", json.dumps(given))
    distribution = choose_distribution(digits_config(Path("unused"), Path("unused")))
    assert (distribution.chief, distribution.num_workers) == (True, 1)


def test_who_waits_says_for_whom_and_ends_at_a_signal_afterwards(monkeypatch, capsys, tmp_path):
    """Like TensorFlow, `faulthandler` takes the signal behind the back of Python's `signal`."""
    received = []
    with (tmp_path / "taken").open("w") as file:

        def strategy(_):
            faulthandler.register(signal.SIGTERM, file)
            os.kill(os.getpid(), signal.SIGTERM)

        monkeypatch.setattr("tensorflow.distribute.MultiWorkerMirroredStrategy", strategy)
        before = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
        try:
            workers = ["--workers=a:1,b:1,c:1", "--worker_index=1"]
            distribution = choose_distribution(
                digits_config(Path("unused"), Path("unused"), *workers)
            )
            assert not received
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            faulthandler.unregister(signal.SIGTERM)
            signal.signal(signal.SIGTERM, before)
    assert received == [signal.SIGTERM]
    assert (distribution.worker, distribution.num_workers) == (1, 3)
    assert "waiting for 2 worker(s): a:1, c:1\n" in capsys.readouterr().err
