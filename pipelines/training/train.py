"""The train stage: one network on one prepared data set, resumable at every step."""

import dataclasses
import os
import re
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from pipelines import atomic
from pipelines.config import TrainConfig
from pipelines.data.streams import class_names, num_images, open_dataset
from pipelines.errors import BadInput, Failed, Stopped
from pipelines.stage_log import logged
from pipelines.training.launcher import launch
from pipelines.training.loop import Loop
from pipelines.training.model import num_parameters
from pipelines.training.run import Run, starting_weights
from pipelines.training.state import Progress, State
from pipelines.training.strategy import Distribution, choose_distribution

# What may help where TensorFlow gives up, and what may where nothing else is known to.
ADVICE = {
    tf.errors.ResourceExhaustedError: "where memory ran out, raise accumulation_steps or lower "
    "global_batch_size",
    tf.errors.UnavailableError: "see whether the tf.data service is there, and type the same "
    "command again",
}
OTHER_ADVICE = "where the data are damaged, prepare them anew; then type the same command again"


@dataclass(frozen=True)
class Training:
    """The result of a run. Accuracies are of the last epoch, on its validation split."""

    run: str
    network: str
    parameters: int
    epochs: int
    best_epoch: int
    top1: float
    top5: float
    n: int
    training_s: float
    images_per_s: float

    def __str__(self) -> str:
        better = f"; epoch {self.best_epoch} was better, --checkpoint best takes that"
        better = better if self.best_epoch < self.epochs else ""
        return (
            f"{self.run}: {self.network}, {self.parameters:,} parameters, "
            f"{self.epochs} epochs in {self.training_s:.0f} s "
            f"({self.images_per_s:.1f} images/s)\n"
            f"validation top-1 {self.top1:.4f}, top-5 {self.top5:.4f}, n = {self.n:,}{better}\n"
            f"next: python -m pipelines.evaluate {quote(self.run)}"
        )


def train(config: TrainConfig) -> Training:
    """Trains from the run's newest checkpoint, or from the start, to the last epoch.

    The run's folder holds everything that comes of it (see `pipelines.training.run`).

    Raises:
        Failed: the loss is no longer a number, a checkpoint could not be written, another worker
            is gone, the data are damaged, or memory ran out.
        BadInput: no such data or split, a batch that the split or the devices cannot fill, a
            folder that is another run's, or a corrupt checkpoint.
        Stopped: this process was asked to stop, and the run goes on from there another time.
    """
    if config.local_workers > 1 and "TF_CONFIG" not in os.environ:
        with logged(config.run, "train"):
            launch(config)
        if not (metrics := Run.open(config.run).metrics()):
            raise Stopped("the workers stopped; type the same command again, and they go on")
        return Training(**metrics)
    distribution = choose_distribution(config)
    dataset = open_dataset(config.data)
    steps_per_epoch = count_steps_per_epoch(config, dataset, distribution)
    try:
        with distribution.strategy.scope():
            return _train(config, distribution, dataset, steps_per_epoch)
    except tf.errors.OpError as error:
        gone = isinstance(error, (tf.errors.UnavailableError, tf.errors.AbortedError))
        if gone and distribution.num_workers > 1:
            raise Failed(
                "another worker is gone; start all of them again, and they go on from the newest "
                "checkpoint"
            ) from error
        raise Failed(f"{_reason(error)}; {ADVICE.get(type(error), OTHER_ADVICE)}") from error


def _reason(error: tf.errors.OpError) -> str:
    """What TensorFlow says of it, without where in the graph it happened."""
    said = re.split(r"\s*\[(?:\[|Op:)", error.message)[0]
    return re.sub(r"^\{\{.*?\}\} ", "", said.rpartition("\n")[2].strip())


def _train(
    config: TrainConfig,
    distribution: Distribution,
    dataset: tfds.core.DatasetBuilder,
    steps_per_epoch: int,
) -> Training:
    names = class_names(dataset)
    keras.utils.set_random_seed(config.seed)
    begun = Run(config.run).checkpoints.newest()
    weights = None if begun else starting_weights(config)
    state = State(config, len(names), weights, steps_per_epoch)
    with _held(config, distribution):
        run = Run.start(config, dataset) if distribution.chief else Run(config.run)
        progress = run.checkpoints.restore(state)
        if not distribution.same_everywhere([progress.epoch, progress.step]):
            raise BadInput(
                f"the workers see different checkpoints in {str(config.run)!r}; "
                "give --run a folder that is the same for all of them"
            )
        loop = Loop(config, run, dataset, state, progress, distribution, steps_per_epoch)
        print(_opening(config, distribution, progress), file=sys.stderr)
        with logged(_logs(config, distribution), "train"):
            loop.train()
        result = _result(state, run, loop.progress.history, config)
        if distribution.chief:
            run.finish(dataclasses.asdict(result))
    return result


def _logs(config: TrainConfig, distribution: Distribution) -> Path | None:
    """The folder that tells of this process; of local workers, the one that started them tells."""
    return config.run if distribution.chief and config.local_workers == 1 else None


def _held(config: TrainConfig, distribution: Distribution) -> AbstractContextManager[None]:
    """The chief holds the run's folder, which it alone writes to."""
    if not distribution.chief:
        return nullcontext()
    config.run.mkdir(parents=True, exist_ok=True)
    return atomic.locked(config.run)


def count_steps_per_epoch(
    config: TrainConfig, dataset: tfds.core.DatasetBuilder, distribution: Distribution
) -> int:
    """Batches in an epoch.

    Raises:
        BadInput: no such split, one class only, or a batch that the split or the devices cannot
            fill.
    """
    names = class_names(dataset)
    num_images(dataset, config.validation_split)
    images = num_images(dataset, config.train_split)
    if config.global_batch_size > images:
        raise BadInput(
            f"global_batch_size is {config.global_batch_size}, more than the {images} images of "
            f"{config.train_split!r}; give a smaller one"
        )
    if len(names) < 2:
        raise BadInput(
            f"{str(config.data)!r} has the one class {names[0]!r}; a classifier takes two or more: "
            "was it prepared from the folder that holds the class folders?"
        )
    parts = distribution.replicas * config.accumulation_steps
    if config.global_batch_size % parts:
        raise BadInput(
            f"global_batch_size is {config.global_batch_size}; with {distribution.replicas} "
            f"device(s) and accumulation_steps {config.accumulation_steps} it is a multiple of "
            f"{parts}"
        )
    return images // config.global_batch_size


def _opening(config: TrainConfig, distribution: Distribution, progress: Progress) -> str:
    """What a person is told before the first step."""
    if progress.finished(config):
        return f"{config.run} has its {progress.epoch} epochs already"
    step = f", step {progress.step} of the next" if progress.step else ""
    begun = progress.epoch or progress.step
    return (
        f"{config.run} {f'goes on after epoch {progress.epoch}{step}' if begun else 'begins'}: "
        f"{config.network} at {config.input.size_px} px, {config.global_batch_size} images a step "
        f"on {distribution.replicas} device(s), to epoch {config.last_epoch}"
    )


def _result(
    state: State, run: Run, history: list[dict[str, float]], config: TrainConfig
) -> Training:
    """Sums up a history that has reached the last epoch."""
    last = history[-1]
    training_s = sum(row["training_s"] for row in history)
    images_per_s = [row["images_per_s"] for row in history]
    return Training(
        run=str(run.folder),
        network=config.network,
        parameters=num_parameters(state.model),
        epochs=len(history),
        best_epoch=Progress(history).best_epoch(),
        top1=last["val_top1"],
        top5=last["val_top5"],
        n=int(last["val_n"]),
        training_s=training_s,
        images_per_s=float(np.median(images_per_s)),
    )
