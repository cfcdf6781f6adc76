"""The train stage: one network on one prepared data set, resumable after every epoch."""

import dataclasses
import sys
import time
from dataclasses import dataclass
from shlex import quote

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from pipelines import atomic
from pipelines.config import TrainConfig
from pipelines.data.streams import (
    class_names,
    evaluation_stream,
    num_images,
    open_dataset,
    training_stream,
)
from pipelines.errors import BadInput, Failed
from pipelines.evaluation.accuracy import count, counting_step
from pipelines.training.model import compile_for_training, image_classifier, learning_rate
from pipelines.training.progress import ProgressBar
from pipelines.training.run import Run


@dataclass(frozen=True)
class Training:
    """The result of a run. Accuracies are of the last epoch, on the validation split."""

    run: str
    network: str
    parameters: int
    epochs: int
    top1: float
    top5: float
    n: int
    training_s: float
    images_per_s: float

    def __str__(self) -> str:
        return (
            f"{self.run}: {self.network}, {self.parameters:,} trainable parameters, "
            f"{self.epochs} epochs in {self.training_s:.0f} s "
            f"({self.images_per_s:.1f} images/s)\n"
            f"validation top-1 {self.top1:.4f}, top-5 {self.top5:.4f}, n = {self.n:,}\n"
            f"next: python -m pipelines.evaluate {quote(self.run)}"
        )


class EndOfEpoch(keras.callbacks.Callback):
    """Measures the validation split, saves a checkpoint and extends the history.

    A loss that is no longer a number ends the run; its last checkpoint stays.

    Args:
        run: where the checkpoint goes.
        history: the epochs so far; a row is added after each.
        validation: the evaluation stream.
        config: the run's.
        steps_per_epoch: batches in an epoch.
    """

    def __init__(
        self,
        run: Run,
        history: list[dict[str, float]],
        validation: tf.data.Dataset,
        config: TrainConfig,
        steps_per_epoch: int,
    ) -> None:
        super().__init__()
        self._run = run
        self._history = history
        self._validation = validation
        self._images_per_epoch = steps_per_epoch * config.global_batch_size
        self._steps_per_epoch = steps_per_epoch
        self._schedule = learning_rate(config, steps_per_epoch)
        self._begun_s = 0.0

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self._counting_step = counting_step(self.model)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._begun_s = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
        self._check(logs["loss"], f"the loss is {logs['loss']} at step {batch + 1}")

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        training_s = time.perf_counter() - self._begun_s
        accuracy = count(self._counting_step, self._validation)
        self._check(accuracy.loss, f"the validation loss is {accuracy.loss} at the end")
        logs |= {
            "val_top1": accuracy.top1,
            "val_top5": accuracy.top5,
            "val_loss": accuracy.loss,
            "val_n": accuracy.n,
            "learning_rate": self._schedule((epoch + 1) * self._steps_per_epoch),
            "training_s": training_s,
            "images_per_s": self._images_per_epoch / training_s,
        }
        self._history.append({"epoch": epoch + 1} | {key: float(v) for key, v in logs.items()})
        self._run.save_checkpoint(self.model, self._history)

    def _check(self, loss: float, finding: str) -> None:
        if not np.isfinite(loss):
            raise Failed(
                f"{finding} of epoch {len(self._history) + 1}; "
                "lower optimizer.base_lr or warm up longer"
            )


def choose_strategy() -> tf.distribute.Strategy:
    """MirroredStrategy where there are several devices to train on, else the default one."""
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) == 1:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def train(config: TrainConfig) -> Training:
    """Trains from the run's newest checkpoint, or from the start, to the last epoch.

    The run's folder holds everything that comes of it (see `pipelines.training.run`). Batch
    normalisation uses the statistics of each device's own share of the batch.

    Raises:
        Failed: the loss is no longer a number.
        BadInput: no such data or split, images that grow over the epochs, a batch that the split
            or the devices cannot fill, a folder that is another run's, or a corrupt checkpoint.
    """
    dataset = open_dataset(config.data)
    names = class_names(dataset)
    num_images(dataset, config.validation_split)
    steps_per_epoch = num_images(dataset, config.train_split) // config.global_batch_size
    if not steps_per_epoch:
        raise BadInput(
            f"global_batch_size is {config.global_batch_size}, more than the "
            f"{num_images(dataset, config.train_split)} images of {config.train_split!r}; "
            "give a smaller one"
        )
    if config.size_px(0) != config.input.size_px:
        raise BadInput(
            f"augment.first_size_px is {config.augment.first_size_px}: the stream grows its images "
            f"and this loop's model takes {config.input.size_px} only; leave it out"
        )
    if len(names) < 2:
        raise BadInput(
            f"{str(config.data)!r} has the one class {names[0]!r}; a classifier takes two or more: "
            "was it prepared from the folder that holds the class folders?"
        )
    strategy = choose_strategy()
    if config.global_batch_size % strategy.num_replicas_in_sync:
        raise BadInput(
            f"global_batch_size is {config.global_batch_size}; with "
            f"{strategy.num_replicas_in_sync} devices it is a multiple of that"
        )
    keras.utils.set_random_seed(config.seed)
    with strategy.scope():
        weights = None if Run(config.run).has_checkpoint() else config.weights
        model = image_classifier(config.network, config.input, len(names), weights)
        compile_for_training(model, config, steps_per_epoch)
    config.run.mkdir(parents=True, exist_ok=True)
    with atomic.locked(config.run), strategy.scope():
        run = Run.start(config, names)
        model.optimizer.build(model.trainable_variables)
        history = run.restore_checkpoint(model)
        print(_opening(config, strategy, len(history)), file=sys.stderr)
        if len(history) < config.last_epoch:
            _fit(model, run, history, dataset, config, steps_per_epoch)
        return _finish(model, run, history, config)


def _opening(config: TrainConfig, strategy: tf.distribute.Strategy, epochs_done: int) -> str:
    """What a person is told before the first step."""
    if epochs_done >= config.last_epoch:
        return f"{config.run} has its {epochs_done} epochs already"
    begins = f"goes on after epoch {epochs_done}" if epochs_done else "begins"
    return (
        f"{config.run} {begins}: {config.network} at {config.input.size_px} px, "
        f"{config.global_batch_size} images a step on {strategy.num_replicas_in_sync} device(s), "
        f"to epoch {config.last_epoch}"
    )


def _fit(
    model: keras.Model,
    run: Run,
    history: list[dict[str, float]],
    dataset: tfds.core.DatasetBuilder,
    config: TrainConfig,
    steps_per_epoch: int,
) -> None:
    """Trains the epochs that the history lacks, extending it."""
    validation = evaluation_stream(
        dataset, config.validation_split, config.input, config.global_batch_size
    )
    with ProgressBar(steps_per_epoch) as progress:
        model.fit(
            training_stream(dataset, config, first_epoch=len(history)),
            epochs=config.last_epoch,
            initial_epoch=len(history),
            steps_per_epoch=steps_per_epoch,
            shuffle=False,
            verbose=0,
            callbacks=[
                EndOfEpoch(run, history, validation, config, steps_per_epoch),
                keras.callbacks.TensorBoard(run.folder / "tensorboard", write_graph=False),
                progress,
            ],
        )


def _finish(
    model: keras.Model, run: Run, history: list[dict[str, float]], config: TrainConfig
) -> Training:
    """Sums up a history that has reached the last epoch."""
    last = history[-1]
    training_s = sum(row["training_s"] for row in history)
    images_per_s = [row["images_per_s"] for row in history]
    result = Training(
        run=str(run.folder),
        network=config.network,
        parameters=sum(int(np.prod(v.shape)) for v in model.trainable_variables),
        epochs=len(history),
        top1=last["val_top1"],
        top5=last["val_top5"],
        n=int(last["val_n"]),
        training_s=training_s,
        images_per_s=float(np.median(images_per_s)),
    )
    run.finish(dataclasses.asdict(result))
    return result
