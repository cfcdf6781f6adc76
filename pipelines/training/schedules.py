"""The learning rate as a function of the step: a linear warm-up, then one of Keras's schedules."""

from collections.abc import Callable

import keras
from keras import ops
from keras.optimizers import schedules

from pipelines.config import ScheduleConfig, TrainConfig

Schedule = Callable[[keras.KerasTensor], float | keras.KerasTensor]


class WarmUp(schedules.LearningRateSchedule):
    """Rises in a straight line from zero at step 0 to `peak` at `warmup_steps`; then `after`.

    Args:
        peak: the learning rate at the end of the warm-up.
        warmup_steps: its length; 0 for none.
        after: what follows, whose own step 0 is the end of the warm-up.
    """

    def __init__(self, peak: float, warmup_steps: int, after: Schedule) -> None:
        self.peak = peak
        self.warmup_steps = warmup_steps
        self.after = after

    def __call__(self, step: int | keras.KerasTensor) -> keras.KerasTensor:
        step = ops.cast(step, "float32")
        rising = self.peak * step / max(1, self.warmup_steps)
        falling = self.after(ops.maximum(step - self.warmup_steps, 0.0))
        return ops.where(step < self.warmup_steps, rising, falling)


def constant(config: ScheduleConfig, peak: float, steps: int, steps_per_epoch: int) -> Schedule:
    return lambda step: peak


def step(config: ScheduleConfig, peak: float, steps: int, steps_per_epoch: int) -> Schedule:
    warmup_steps = round(config.warmup_epochs * steps_per_epoch)
    # Keras holds a value up to and including its boundary.
    boundaries = [
        float(round(epoch * steps_per_epoch) - warmup_steps - 1) for epoch in config.step_epochs
    ]
    values = [peak * config.factor**number for number in range(len(boundaries) + 1)]
    return schedules.PiecewiseConstantDecay(boundaries, values)


def exponential(config: ScheduleConfig, peak: float, steps: int, steps_per_epoch: int) -> Schedule:
    every_steps = config.decay_epochs * steps_per_epoch
    return schedules.ExponentialDecay(peak, every_steps, config.factor, staircase=True)


def cosine(config: ScheduleConfig, peak: float, steps: int, steps_per_epoch: int) -> Schedule:
    return schedules.CosineDecay(peak, steps, alpha=config.final_share)


def polynomial(config: ScheduleConfig, peak: float, steps: int, steps_per_epoch: int) -> Schedule:
    return schedules.PolynomialDecay(peak, steps, config.final_share * peak, config.power)


# Each maps the config, the peak, the steps after the warm-up and those of an epoch to a schedule.
SCHEDULES: dict[str, Callable[[ScheduleConfig, float, int, int], Schedule]] = {
    "constant": constant,
    "step": step,
    "exponential": exponential,
    "cosine": cosine,
    "polynomial": polynomial,
}


def learning_rate(
    config: TrainConfig, steps_per_epoch: int, factor: float = 1.0
) -> schedules.LearningRateSchedule:
    """The learning rate of each step of a run, from 0, times a factor."""
    peak, of = factor * config.peak_lr, config.schedule
    warmup_steps = round(of.warmup_epochs * steps_per_epoch)
    steps = max(1, config.epochs * steps_per_epoch - warmup_steps)
    return WarmUp(peak, warmup_steps, SCHEDULES[of.name](of, peak, steps, steps_per_epoch))
