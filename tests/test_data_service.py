"""Training images from a tf.data service."""

import json
import shutil
import subprocess
import sys

import pytest

from pipelines.data.streams import open_dataset, training_stream
from pipelines.errors import BadInput
from tests.conftest import numbered_config


def own_network():
    """What a command begins with to have a network of its own; nothing where not permitted.

    TensorFlow's servers listen on every interface, whatever address they are given.
    """
    enter = ["unshare", "--net", "--map-root-user", "sh", "-c"]
    script = 'ip link set lo up && exec "$@"'
    if shutil.which("unshare") and shutil.which("ip"):
        tried = subprocess.run([*enter, script, "sh", "true"], capture_output=True)
        if tried.returncode == 0:
            return [*enter, script, "sh"]
    return []


@pytest.fixture(scope="module")
def given(numbered, tmp_path_factory):
    """What the scenario's stream gave."""
    run = tmp_path_factory.mktemp("served")
    done = subprocess.run(
        [*own_network(), sys.executable, "-m", "tests.data_service_scenario", numbered, run],
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_two_workers_give_each_image_once_an_epoch_as_the_stream_without_them(given):
    """The last images may be of one epoch more, where the end of two workers meets."""
    assert given["different"] == 2 * 257
    assert given["of_first_epoch"] == 257
    assert given["of_second_epoch"] > 100


@pytest.mark.slow
def test_training_goes_on_after_a_worker_was_killed(given):
    """To the last of three epochs of 257 batches of one image."""
    assert given["after_kill"] == 3 * 257 - 21


@pytest.mark.slow
def test_a_run_trains_on_what_the_service_prepares(given):
    assert given["trained_epochs"] == 1


def test_a_service_that_is_not_there_is_named(numbered):
    config = numbered_config(numbered, "--data_service=grpc://127.0.0.1:1")
    with pytest.raises(BadInput, match=r"nobody answers at data_service grpc://127\.0\.0\.1:1"):
        training_stream(open_dataset(numbered), config, first_epoch=0)
