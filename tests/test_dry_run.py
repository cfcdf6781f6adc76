"""What a run would take, before it begins."""

import itertools
import json
from types import SimpleNamespace

import pytest

from pipelines import train as command_line
from pipelines.data.streams import num_images, open_dataset
from pipelines.errors import BadInput
from pipelines.training import loop
from pipelines.training.dry_run import dry_run
from tests.conftest import RECIPE, digits_config

PARAMETERS = 315_146
MIB = 2**20
# On 32x32x1: normalised, two convolutions, each with its ReLU and pooling, and two dense layers.
OUTPUTS = [
    32 * 32,
    2 * (30 * 30 * 32),
    15 * 15 * 32,
    2 * (13 * 13 * 64),
    2 * (6 * 6 * 64),  # Flattened again.
    128,
    10,
]


@pytest.fixture
def told(digits, tmp_path, monkeypatch, capsys):
    """What the command prints, on a clock by which a step takes two seconds, half of it waiting."""
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=itertools.count().__next__))
    monkeypatch.chdir(tmp_path)
    arguments = [
        f"--config={RECIPE}",
        f"--data={digits}",
        "--train_split=train[:100]",
        "--ema_momentum=0.9",
        "--accumulation_steps=2",
        "--stop_after_epochs=4",
    ]
    assert command_line.main([*arguments, "--dry-run", "--json"]) == 0
    assert list(tmp_path.iterdir()) == []
    return json.loads(capsys.readouterr().out)


def test_memory_follows_from_the_shapes(told):
    assert told["parameters"] == told["trained_parameters"] == PARAMETERS
    of_parameters = PARAMETERS * 4 / MIB
    assert told["weights_mib"] == told["averages_mib"] == of_parameters
    # The sums of the accumulated gradients, and a part's own.
    assert told["gradients_mib"] == 2 * of_parameters
    # Its velocities, and a handful of numbers.
    assert told["optimizer_mib"] == pytest.approx(of_parameters, abs=32 / MIB)
    # Half of the 32 images of a step at a time.
    assert told["activations_mib_estimate"] == 16 * sum(OUTPUTS) * 4 / MIB


def test_time_is_that_of_the_steps(told):
    """100 images are three steps of 32, of which eight are measured nonetheless."""
    assert (told["steps_per_epoch"], told["epochs"], told["steps"]) == (3, 4, 12)
    assert told["step_s"] == 2
    assert told["projected_s"] == 24
    assert told["images_per_s"] == 16
    assert told["input_wait_share"] == 0.5


def test_a_dry_run_refuses_what_training_refuses(digits, tmp_path):
    total = num_images(open_dataset(digits), "train")
    with pytest.raises(BadInput, match=f"more than the {total} images"):
        dry_run(digits_config(digits, tmp_path / "run", "--global_batch_size=5000"))
    with pytest.raises(BadInput, match="a dry run measures one process"):
        dry_run(digits_config(digits, tmp_path / "run", "--local_workers=2"))
