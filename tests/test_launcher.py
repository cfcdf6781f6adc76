"""Several workers on this machine, each a small script instead of a training."""

import json
import shutil
import signal
import sys

import pytest

from pipelines.errors import Failed, Stopped
from pipelines.training import train
from pipelines.training.launcher import run_workers
from tests.conftest import digits_config

INDEX = (
    "import json, os, signal, time; index = json.loads(os.environ['TF_CONFIG'])['task']['index']; "
)
# Once: a second signal would end the tests.
ASK_TO_STOP = f"{INDEX}\nif not index: os.kill(os.getppid(), signal.SIGTERM)\ntime.sleep(60)"


def test_workers_that_are_told_apart_end_well(tmp_path):
    record = f"{INDEX}open(f'{tmp_path}/{{index}}', 'w').write(os.environ['TF_CONFIG'])"
    run_workers([sys.executable, "-c", record], 2)
    told = [json.loads((tmp_path / str(index)).read_text()) for index in range(2)]
    assert [one["task"] for one in told] == [{"type": "worker", "index": n} for n in range(2)]
    assert told[0]["cluster"] == told[1]["cluster"]
    assert len(set(told[0]["cluster"]["worker"])) == 2


def test_workers_that_are_stopped_before_they_train_have_not_failed():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match="type the same command again"):
        run_workers([sys.executable, "-c", ASK_TO_STOP], 2)
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ("end", "told"),
    [
        ("raise SystemExit('failed: the loss is nan; lower it')", "failed: the loss is nan; lower"),
        ("os.kill(os.getpid(), 9)", "type the same command again"),
    ],
)
def test_what_a_worker_said_last_tells_what_to_do(end, told):
    script = f"{INDEX}\nif index: {end}\ntime.sleep(60)"
    with pytest.raises(Failed, match=rf"statuses are \[-15, -?\d\]; {told}"):
        run_workers([sys.executable, "-c", script], 2)


def test_workers_that_stop_in_the_middle_of_a_run_have_no_result(
    run, digits, tmp_path, monkeypatch
):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    monkeypatch.setattr(train, "launch", lambda config: None)
    config = digits_config(digits, folder, "--local_workers=2")
    assert train.train(config).epochs == 3
    (folder / "metrics.json").unlink()
    with pytest.raises(Stopped, match="type the same command again"):
        train.train(config)
