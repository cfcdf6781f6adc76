"""The loop over steps and epochs: one for a device, several devices and several machines."""

import os
import sys
import time
from collections.abc import Iterable, Iterator
from shlex import quote

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from pipelines.config import TrainConfig
from pipelines.data.streams import class_names, evaluation_stream, training_stream
from pipelines.errors import Failed, Stopped
from pipelines.evaluation.accuracy import count, counting_step
from pipelines.training.board import describe, described
from pipelines.training.divergence import Diverged, first_not_finite
from pipelines.training.interruption import Interruption
from pipelines.training.model import at_size
from pipelines.training.progress import Pace, ProgressBar, rates
from pipelines.training.run import Run
from pipelines.training.schedules import learning_rate
from pipelines.training.state import Progress, State
from pipelines.training.step import Totals, TrainingStep
from pipelines.training.step_log import StepLog
from pipelines.training.strategy import Distribution

# Where a loss diverges again and again, a lower learning rate is not what it lacks.
MAX_ROLLBACKS = 5
ROLLBACK_LR_FACTOR = 0.1


class Loop:
    """Trains a state from where its progress stands. Within the scope of the strategy.

    Args:
        config: the run's.
        run: where checkpoints and logs go; the chief writes them.
        dataset: the prepared data.
        state: what is trained.
        progress: how far it has come.
        distribution: the devices.
        steps_per_epoch: batches in an epoch.

    Attributes:
        progress: how far it has come by now.
        models: the state's model for each size of the training images, in pixels.
    """

    def __init__(
        self,
        config: TrainConfig,
        run: Run,
        dataset: tfds.core.DatasetBuilder,
        state: State,
        progress: Progress,
        distribution: Distribution,
        steps_per_epoch: int,
    ) -> None:
        self._config = config
        self._run = run
        self._dataset = dataset
        self._state = state
        self.progress = progress
        self._distribution = distribution
        self._steps_per_epoch = steps_per_epoch
        self.models = _models(config, state, len(class_names(dataset)))
        self._counting_step = counting_step(state.model)
        self._pace = Pace(config.global_batch_size)
        self._ended_s = 0.0
        self._to_describe = distribution.chief and not described(run.board_folder)
        self._log = StepLog(run.log_file, steps_per_epoch)
        strategy = distribution.strategy
        self._sum_over_workers = tf.function(
            lambda number: strategy.reduce("SUM", strategy.run(tf.identity, (number,)), axis=None)
        )

    def train(self) -> None:
        """Trains to the run's end.

        Raises:
            Stopped: this process, or another of the workers, was asked to.
            Failed: the loss diverged, or a checkpoint could not be written.
        """
        if self._config.on_nan == "rollback" and not self._run.checkpoints.newest():
            self._save()
        self._take_up_records()
        with Interruption() as interruption, ProgressBar(self._steps_per_epoch) as bar:
            callbacks = keras.callbacks.CallbackList(
                self._callbacks(bar), model=self._state.model, epochs=self._config.last_epoch
            )
            callbacks.on_train_begin()
            while not self.progress.finished(self._config):
                try:
                    self._train_on(callbacks, interruption)
                except Diverged as diverged:
                    self._roll_back(diverged)
            callbacks.on_train_end()

    def rehearse(self, steps: int) -> Iterator[tuple[float, float]]:
        """Trains on the first batches and does nothing else; the progress stays where it is.

        Gives, of each step, how many seconds it took and how many of these it waited for its
        batch.
        """
        step = TrainingStep(self._state, self._config, self.models)
        batches = iter(self._training_batches())
        for _ in range(steps):
            begun_s = time.perf_counter()
            images, labels = next(batches)
            input_wait_s = time.perf_counter() - begun_s
            step(images, labels, stop=False)
            yield time.perf_counter() - begun_s, input_wait_s

    def _callbacks(self, bar: ProgressBar) -> list[keras.callbacks.Callback]:
        if not self._distribution.chief:
            return []
        # What the TensorBoard callback asks of a model.
        self._state.model.optimizer = None
        board = keras.callbacks.TensorBoard(
            self._run.board_folder,
            histogram_freq=int(self._config.weight_histograms),
            write_graph=False,
        )
        return [board, bar, self._log]

    def _take_up_records(self) -> None:
        """Makes log and result what they were when the run had come this far."""
        if not self._distribution.chief:
            return
        self._log.go_on(self.progress.history, self.progress.step)
        if not self.progress.finished(self._config):
            self._run.unfinish()

    def _train_on(self, callbacks: keras.callbacks.CallbackList, stop: Interruption) -> None:
        """Trains with one learning-rate schedule, from wherever the progress stands."""
        lowered = ROLLBACK_LR_FACTOR**self.progress.rollbacks
        schedule = learning_rate(self._config, self._steps_per_epoch, lowered)
        if self.progress.rollbacks:
            self._state.optimizer.learning_rate = schedule
        step = TrainingStep(self._state, self._config, self.models)
        batches = iter(self._training_batches())
        while not self.progress.finished(self._config):
            callbacks.on_epoch_begin(self.progress.epoch)
            self._ended_s = time.perf_counter()
            while self.progress.step < self._steps_per_epoch:
                self._train_batch(step, batches, callbacks, stop)
            self._end_epoch(callbacks, schedule, stop)

    def _train_batch(
        self,
        step: TrainingStep,
        batches: "tf.distribute.DistributedIterator",
        callbacks: keras.callbacks.CallbackList,
        stop: Interruption,
    ) -> None:
        progress = self.progress
        callbacks.on_train_batch_begin(progress.step)
        begun_s = time.perf_counter()
        images, labels = next(batches)
        input_wait_s = time.perf_counter() - begun_s
        totals = step(images, labels, stop=stop.asked)
        self._check(totals, images, labels)
        progress.step += 1
        progress.loss += totals.loss
        progress.correct += totals.correct
        # From the end of one step to that of the next: with what logs and checkpoints take.
        now_s = time.perf_counter()
        step_s, self._ended_s = now_s - self._ended_s, now_s
        progress.training_s += step_s
        progress.input_wait_s += input_wait_s
        logs = self._so_far() | self._pace.after(step_s, input_wait_s)
        callbacks.on_train_batch_end(progress.step - 1, logs)
        done = progress.epoch * self._steps_per_epoch + progress.step
        if self._to_describe:
            self._to_describe = False
            seen = self._distribution.strategy.experimental_local_results(images)[0]
            describe(self._run.board_folder, self._config, self.models[seen.shape[1]], seen)
        if totals.stops or done % self._config.checkpoint_every_steps == 0:
            self._save()
        if totals.stops:
            raise self._stopped()

    def _stopped(self) -> Stopped:
        return Stopped(
            f"{self._run.folder} stopped after step {self.progress.step} of epoch "
            f"{self.progress.epoch + 1}; "
            f"python -m pipelines.train --config {quote(str(self._run.config_file))} goes on"
        )

    def _training_batches(self) -> tf.distribute.DistributedDataset:
        """From the first batch that is not trained on yet."""

        def stream(worker: int, num_workers: int) -> tf.data.Dataset:
            return training_stream(
                self._dataset,
                self._config,
                first_epoch=self.progress.epoch,
                first_step=self.progress.step,
                worker=worker,
                num_workers=num_workers,
            )

        return self._distribution.spread(stream, self._worker_batch_size)

    def _evaluation_batches(self) -> tf.distribute.DistributedDataset:
        def stream(worker: int, num_workers: int) -> tf.data.Dataset:
            return evaluation_stream(
                self._dataset,
                self._config.validation_split,
                self._config.input,
                self._worker_batch_size,
                worker=worker,
                num_workers=num_workers,
            )

        return self._distribution.spread(stream, self._worker_batch_size)

    def _until_stopped(self, batches: Iterable[tuple], stop: Interruption) -> Iterator[tuple]:
        """The batches, of which all workers have as many, unless one of them is asked to stop.

        Raises:
            Stopped: one was; all learn of it.
        """
        for batch in batches:
            if self._sum_over_workers(tf.constant(float(stop.asked))):
                raise self._stopped()
            yield batch

    @property
    def _worker_batch_size(self) -> int:
        return self._config.global_batch_size // self._distribution.num_workers

    def _so_far(self) -> dict[str, float]:
        """Loss and top-1 over the epoch's steps so far."""
        progress = self.progress
        images = progress.step * self._config.global_batch_size
        return {"loss": progress.loss / progress.step, "top1": progress.correct / images}

    def _end_epoch(
        self,
        callbacks: keras.callbacks.CallbackList,
        schedule: keras.optimizers.schedules.LearningRateSchedule,
        stop: Interruption,
    ) -> None:
        """Evaluates, extends the history and saves; only saves, if asked to stop meanwhile."""
        progress = self.progress
        self._state.agree()
        try:
            with self._state.evaluated():
                batches = self._until_stopped(self._evaluation_batches(), stop)
                accuracy = count(self._counting_step, batches)
        except Stopped:
            self._save()
            raise
        if not np.isfinite(accuracy.loss):
            raise Diverged(
                f"the validation loss is {accuracy.loss} at the end of epoch {progress.epoch + 1}"
            )
        logs = self._so_far() | {
            "val_top1": accuracy.top1,
            "val_top5": accuracy.top5,
            "val_loss": accuracy.loss,
            "val_n": accuracy.n,
            "learning_rate": float(schedule((progress.epoch + 1) * self._steps_per_epoch)),
            "training_s": progress.training_s,
        }
        images = self._steps_per_epoch * self._config.global_batch_size
        logs |= rates(images, progress.training_s, progress.input_wait_s)
        epoch = progress.epoch
        logs = {key: float(value) for key, value in logs.items()}
        history = [*progress.history, {"epoch": epoch + 1, **logs}]
        self.progress = Progress(history, rollbacks=progress.rollbacks)
        self._save()
        callbacks.on_epoch_end(epoch, logs)

    def _save(self) -> None:
        """A checkpoint, by the chief; the other workers take part in what it needs of them."""
        self._state.agree()
        if not self._distribution.chief:
            return
        checkpoints = self._run.checkpoints
        try:
            checkpoints.save(self._state, self.progress, self._config.kept_checkpoints)
            if self.progress.history:
                self._run.write_history(self.progress.history)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else " ".join(str(error).split())
            newest = checkpoints.newest()
            told = (
                f"cannot write a checkpoint ({reason}); "
                f"{f'{newest} is the newest' if newest else 'there is none yet'}"
            )
            # What a finished run has measured is nothing without its weights.
            if self._config.on_disk_full == "stop" or self.progress.finished(self._config):
                raise Failed(f"{told}; make room and type the same command again") from error
            print(f"{told}; training goes on", file=sys.stderr)

    def _check(self, totals: Totals, images: tf.Tensor, labels: tf.Tensor) -> None:
        if np.isfinite(totals).all():
            return
        progress = self.progress
        parts = zip(
            *map(self._distribution.strategy.experimental_local_results, (images, labels)),
            strict=True,
        )
        findings = (
            first_not_finite(self.models[part.shape[1]], self._config, part, of_part)
            for part, of_part in parts
        )
        finding = next(filter(None, findings), "every layer is finite on this worker's images")
        what = "the gradient" if np.isfinite(totals.loss) else f"the loss, {totals.loss},"
        raise Diverged(
            f"{what} is not finite at step {progress.step + 1} of epoch {progress.epoch + 1}: "
            f"{finding}"
        )

    def _roll_back(self, diverged: Diverged) -> None:
        """Goes back to the newest checkpoint with a lower learning rate, if that is the policy."""
        advice = "lower optimizer.base_lr or warm up longer"
        if self._config.on_nan == "stop":
            raise Failed(f"{diverged}; {advice}") from diverged
        rollbacks = self.progress.rollbacks + 1
        if rollbacks > MAX_ROLLBACKS:
            raise Failed(f"{diverged}, after {MAX_ROLLBACKS} rollbacks; {advice}") from diverged
        if not self._run.checkpoints.newest():
            raise Failed(f"{diverged}; there is no checkpoint to go back to") from diverged
        self.progress = self._run.checkpoints.restore(self._state)
        self.progress.rollbacks = rollbacks
        # A run that ends before its next checkpoint remembers the rollback.
        self._save()
        self._take_up_records()
        print(
            f"{diverged}; back to {self._run.checkpoints.newest()} at "
            f"{ROLLBACK_LR_FACTOR**rollbacks:g} times the learning rate",
            file=sys.stderr,
        )


def _models(config: TrainConfig, state: State, num_classes: int) -> dict[int, keras.Model]:
    """The state's model for each size of the training images."""
    models = {config.input.size_px: state.model}
    for size_px in {config.size_px(epoch) for epoch in range(config.epochs)} - set(models):
        models[size_px] = at_size(state.model, config, size_px, num_classes)
    return models
