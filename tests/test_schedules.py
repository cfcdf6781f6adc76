"""The learning rate at single steps, against closed formulas."""

import math

import numpy as np
import pytest

from pipelines.command import parse
from pipelines.config import TrainConfig
from pipelines.training.schedules import learning_rate

STEPS_PER_EPOCH = 50
EPOCHS = 20
TOTAL = EPOCHS * STEPS_PER_EPOCH
PEAK = 0.3
# An epoch's first and last step, the end of each warm-up, a drop and the step before it.
STEPS = [0, 1, 49, 50, 99, 100, 101, 150, 349, 350, 499, 500, 749, 750, TOTAL - 1, TOTAL]

AFTER = {
    "constant": lambda step, after, steps: PEAK,
    "step": lambda step, after, steps: PEAK * 0.2 ** ((step >= 350) + (step >= 750)),
    "exponential": lambda step, after, steps: PEAK * 0.9 ** (after // 100),
    "cosine": lambda step, after, steps: (
        PEAK * (0.05 + 0.95 * (1 + math.cos(math.pi * after / steps)) / 2)
    ),
    "polynomial": lambda step, after, steps: PEAK * (0.05 + 0.95 * (1 - after / steps) ** 2),
}
SETTINGS = {
    "constant": "{}",
    "step": "{step_epochs: [7, 15], factor: 0.2}",
    "exponential": "{decay_epochs: 2, factor: 0.9}",
    "cosine": "{final_share: 0.05}",
    "polynomial": "{final_share: 0.05, power: 2}",
}


def rate_at(name, warmup_epochs, tmp_path):
    fields = SETTINGS[name].replace("{", f"{{name: {name}, warmup_epochs: {warmup_epochs}, ")
    (tmp_path / "run.yaml").write_text(
        f"epochs: {EPOCHS}\noptimizer: {{base_lr: {PEAK}}}\nschedule: {fields}\n"
    )
    config = parse(TrainConfig, ["d", "--config", str(tmp_path / "run.yaml")])
    schedule = learning_rate(config, STEPS_PER_EPOCH)
    return lambda step: float(schedule(step))


@pytest.mark.parametrize("warmup_epochs", [0, 1, 2])
@pytest.mark.parametrize("name", AFTER)
def test_a_schedule_follows_its_formula_from_the_end_of_its_warm_up(name, warmup_epochs, tmp_path):
    rate = rate_at(name, warmup_epochs, tmp_path)
    warmup = warmup_epochs * STEPS_PER_EPOCH
    for step in STEPS:
        expected = (
            PEAK * step / warmup
            if step < warmup
            else AFTER[name](step, step - warmup, TOTAL - warmup)
        )
        assert rate(step) == pytest.approx(expected, rel=1e-5, abs=1e-8), step


def test_the_schedule_of_the_one_weird_trick_ends_at_a_250th():
    config = parse(TrainConfig, ["d", "--recipe", "alexnet_owt.paper"])
    schedule = learning_rate(config, STEPS_PER_EPOCH)
    last = float(schedule(config.epochs * STEPS_PER_EPOCH - 1))
    assert last == pytest.approx(0.01 / 250, rel=1e-3)


def test_a_base_batch_scales_the_rate_and_none_leaves_it():
    def peak(*arguments):
        return parse(TrainConfig, ["d", "--optimizer.base_lr", "0.01", *arguments]).peak_lr

    scaled = ["--global_batch_size", "512", "--optimizer.base_batch_size"]
    assert peak(*scaled, "128") == pytest.approx(0.04)
    assert peak(*scaled, "null") == 0.01
    np.testing.assert_allclose(peak("--global_batch_size", "512"), 0.02)
