"""How fast a network trains: the step of `pipelines.train`, without the stream that feeds it.

Each step takes the same batch, which is in memory: noise, and labels by turns. Gradients, their sum
over the devices, the optimizer's update and what is told of the step are in its time.
"""

from functools import partial
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from pipelines.benchmarking.ceiling import ceiling_gflops
from pipelines.benchmarking.exported import facts
from pipelines.benchmarking.memory import forget_peak, peak_mib
from pipelines.benchmarking.results import Results
from pipelines.benchmarking.rounds import (
    ROUNDS,
    Facts,
    Round,
    Subject,
    in_new_process,
    measured,
    timed,
)
from pipelines.config import TrainBenchmarkConfig, TrainConfig
from pipelines.errors import BadInput
from pipelines.training.model import image_classifier
from pipelines.training.state import State
from pipelines.training.step import TrainingStep
from pipelines.training.strategy import Distribution, local_strategy

# The gradients of the weights and those of the inputs take a forward pass's operations each.
PASSES = 3
# The learning rate is still warming up, so that nothing diverges.
STEPS_PER_EPOCH = 100_000


def train(configs: list[TrainBenchmarkConfig]) -> Results:
    """Measures the networks' training and adds their rows.

    Raises:
        BadInput: a file with other columns, or a batch that the devices cannot share evenly.
        Failed: a process was killed.
    """
    return measured(Subject("train", prepare, partial(in_new_process, steps), PASSES), configs)


def prepare(config: TrainBenchmarkConfig, _: Path) -> Facts:
    """Looks at the network and at the devices.

    Raises:
        BadInput: a batch that the devices cannot share evenly.
    """
    devices = local_strategy().num_replicas_in_sync
    if config.batch_size % devices:
        raise BadInput(
            f"batch_size is {config.batch_size}; with {devices} devices it is a multiple of "
            f"{devices}"
        )
    return facts(image_classifier(config.network, config.input, config.classes, width=config.width))


def steps(config: TrainBenchmarkConfig, _: Path) -> Round:
    """A round: steps for a part of the time."""
    training = TrainConfig(
        data=Path(),
        network=config.network,
        width=config.width,
        input=config.input,
        global_batch_size=config.batch_size,
        precision=config.precision,
    )
    # TensorFlow starts its threads with its first operation.
    tf.zeros(())
    before_mib = forget_peak()
    distribution = Distribution(local_strategy())
    with distribution.strategy.scope():
        keras.utils.set_random_seed(training.seed)
        state = State(training, config.classes, None, STEPS_PER_EPOCH)
        step = TrainingStep(state, training, {config.input.size_px: state.model})
        batches = distribution.spread(partial(_batches, config), config.batch_size)
        images, labels = next(iter(batches))
        steps_s = timed(lambda: step(images, labels, stop=False), config.seconds / ROUNDS)
    # The matrices, too, would count as memory, and leave some behind for the network to use.
    memory_mib = peak_mib() - before_mib
    return Round(
        images_per_s=len(steps_s) * config.batch_size / sum(steps_s),
        calls_s=steps_s,
        memory_mib=memory_mib,
        ceiling_gflops=ceiling_gflops(config.precision) * distribution.replicas,
    )


def _batches(config: TrainBenchmarkConfig, worker: int, num_workers: int) -> tf.data.Dataset:
    """A stream of the one batch: uint8 `(B, S, S, C)`, float32 labels `(B, K)`."""
    shape = (config.batch_size, *config.input.shape)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    labels = tf.one_hot(np.arange(config.batch_size) % config.classes, config.classes)
    return tf.data.Dataset.from_tensors((images, labels))
