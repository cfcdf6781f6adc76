"""What a run would take, measured without beginning it. Nothing is written."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from pipelines.config import TrainConfig
from pipelines.data.streams import class_names, open_dataset
from pipelines.errors import BadInput
from pipelines.training.loop import Loop
from pipelines.training.model import every_layer, num_parameters
from pipelines.training.progress import rates
from pipelines.training.run import Run
from pipelines.training.state import Progress, State
from pipelines.training.strategy import Distribution, choose_distribution
from pipelines.training.train import count_steps_per_epoch

# The first step compiles, and those after it find batches that were prepared meanwhile.
WARM_UP_STEPS = 3
MEASURED_STEPS = 5


@dataclass(frozen=True)
class DryRun:
    """What a run would take. Memory is that of one device, without the framework's own.

    All of it follows from shapes, but what the activations take is an estimate: the outputs of
    all layers of the network, for the images that a device computes on at a time. Time is that
    of the steps, without evaluations and checkpoints.
    """

    run: str
    network: str
    size_px: int
    precision: str
    peak_lr: float
    global_batch_size: int
    devices: int
    parameters: int
    trained_parameters: int
    weights_mib: float
    gradients_mib: float
    optimizer_mib: float
    averages_mib: float
    activations_mib_estimate: float
    steps_per_epoch: int
    epochs: int
    steps: int
    step_s: float
    images_per_s: float
    input_wait_share: float
    projected_s: float

    def __str__(self) -> str:
        exact = self.weights_mib + self.gradients_mib + self.optimizer_mib + self.averages_mib
        rows = {
            "run": f"{self.run}: {self.network} at {self.size_px} px in {self.precision}, "
            f"{self.global_batch_size} images a step on {self.devices} device(s), "
            f"learning rate up to {self.peak_lr:g}",
            "parameters": f"{self.parameters:,}, of which {self.trained_parameters:,} are trained",
            "memory": f"{exact:.1f} MiB on each device: weights {self.weights_mib:.1f}, "
            f"gradients {self.gradients_mib:.1f}, optimizer {self.optimizer_mib:.1f}, "
            f"averaged weights {self.averages_mib:.1f}",
            "": f"and an estimated {self.activations_mib_estimate:.1f} MiB of activations: the "
            "outputs of all layers, for the images computed on at a time",
            "steps": f"{self.steps_per_epoch:,} an epoch, {self.steps:,} in {self.epochs} epochs",
            "time": f"{self.step_s:.3f} s a step, the median of {MEASURED_STEPS} after "
            f"{WARM_UP_STEPS} to warm up; {self.images_per_s:.1f} images/s, "
            f"input wait {self.input_wait_share:.0%}",
            "in all": f"{timedelta(seconds=round(self.projected_s))} for the steps, without "
            "evaluations; the same command without --dry-run begins",
        }
        return "\n".join(f"{key:<12}{value}" for key, value in rows.items())


def dry_run(config: TrainConfig) -> DryRun:
    """Builds what `train` would train, and trains it for a few steps on the real data.

    The network begins with fresh weights, whatever `init` says. Where the size of the images
    grows from epoch to epoch, all is measured at the last one.

    Raises:
        BadInput: no such data or split, or a batch that the split or the devices cannot fill;
            or `local_workers`, which would share this machine.
    """
    if config.local_workers > 1:
        raise BadInput(
            f"local_workers is {config.local_workers}; a dry run measures one process: leave it out"
        )
    distribution = choose_distribution(config)
    dataset = open_dataset(config.data)
    steps_per_epoch = count_steps_per_epoch(config, dataset, distribution)
    with distribution.strategy.scope():
        return _measured(config, distribution, dataset, steps_per_epoch)


def _measured(
    config: TrainConfig,
    distribution: Distribution,
    dataset: tfds.core.DatasetBuilder,
    steps_per_epoch: int,
) -> DryRun:
    keras.utils.set_random_seed(config.seed)
    long_enough = dataclasses.replace(
        config,
        epochs=max(config.epochs, -(-(WARM_UP_STEPS + MEASURED_STEPS) // steps_per_epoch)),
        augment=dataclasses.replace(config.augment, first_size_px=None),
    )
    state = State(long_enough, len(class_names(dataset)), None, steps_per_epoch)
    loop = Loop(
        long_enough, Run(config.run), dataset, state, Progress(), distribution, steps_per_epoch
    )
    timed = list(loop.rehearse(WARM_UP_STEPS + MEASURED_STEPS))[WARM_UP_STEPS:]
    step_s, input_wait_s = np.array(timed).T
    pace = rates(len(timed) * config.global_batch_size, step_s.sum(), input_wait_s.sum())
    size_px = long_enough.size_px(0)
    at_a_time = config.global_batch_size // distribution.replicas // config.accumulation_steps
    gradients = _mib(state.model.trainable_variables)
    steps = config.last_epoch * steps_per_epoch
    return DryRun(
        run=str(config.run),
        network=config.network,
        size_px=size_px,
        precision=config.precision,
        peak_lr=config.peak_lr,
        global_batch_size=config.global_batch_size,
        devices=distribution.replicas,
        parameters=num_parameters(state.model),
        trained_parameters=_numbers(state.model.trainable_variables),
        weights_mib=_mib(state.model.weights),
        # Where they are accumulated, the sums are held beside those of a part.
        gradients_mib=gradients * min(2, config.accumulation_steps),
        optimizer_mib=_mib(state.optimizer.variables),
        averages_mib=_mib(state.averages),
        activations_mib_estimate=at_a_time * _mib(_outputs(loop.models[size_px])),
        steps_per_epoch=steps_per_epoch,
        epochs=config.last_epoch,
        steps=steps,
        step_s=float(np.median(step_s)),
        projected_s=float(np.median(step_s)) * steps,
        **{name: float(rate) for name, rate in pace.items()},
    )


def _outputs(model: keras.Model) -> list[keras.KerasTensor]:
    """What the layers of a model give; what is put into it is an output of another."""
    return [
        output
        for layer in every_layer(model)
        if not isinstance(layer, keras.layers.InputLayer)
        for output in keras.tree.flatten(layer.output)
    ]


def _numbers(tensors: Iterable[Any]) -> int:
    """How many there are, for one image where there is an axis for images."""
    return sum(int(np.prod([side for side in tensor.shape if side])) for tensor in tensors)


def _mib(tensors: Iterable[Any]) -> float:
    return sum(_numbers([tensor]) * tf.as_dtype(tensor.dtype).size for tensor in tensors) / 2**20
