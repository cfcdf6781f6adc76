"""Everything that changes while a network trains, and that a checkpoint has to hold."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pipelines.config import TrainConfig
from pipelines.training.model import every_layer, training_classifier
from pipelines.training.optimizers import optimizer

DTYPE_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


@dataclass
class Progress:
    """How far a run has come.

    Args:
        history: a row of results for each epoch that is finished.
        step: steps of the next epoch that are done.
        loss: sum of the losses of these steps.
        correct: images of these steps whose label came first.
        training_s: seconds that these steps took.
        input_wait_s: seconds of these in which there was no batch yet.
        rollbacks: how often the run went back to a checkpoint with a lower learning rate.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    step: int = 0
    loss: float = 0.0
    correct: float = 0.0
    training_s: float = 0.0
    input_wait_s: float = 0.0
    rollbacks: int = 0

    @property
    def epoch(self) -> int:
        """The epoch under way, from 0."""
        return len(self.history)

    def best_epoch(self) -> int:
        """The number of the epoch with the best top-1 so far, from 1; 0 before there is one."""
        top1 = [row["val_top1"] for row in self.history]
        return 1 + top1.index(max(top1)) if top1 else 0

    def finished(self, config: TrainConfig) -> bool:
        """Whether the run has its epochs, or has long not become better."""
        patience = config.early_stopping_epochs
        waited = self.epoch - self.best_epoch()
        return self.epoch >= config.last_epoch or (patience is not None and waited >= patience)


class State:
    """A network, its optimizer and the moving average of its weights, on all devices.

    Made within the scope of the strategy that trains it.

    Args:
        config: the run's.
        num_classes: width of the classifier.
        weights: what to start from, as `training_classifier` takes it.
        steps_per_epoch: of the learning rate's schedule.
    """

    def __init__(
        self,
        config: TrainConfig,
        num_classes: int,
        weights: str | Path | None,
        steps_per_epoch: int,
    ) -> None:
        self._strategy = tf.distribute.get_strategy()
        with _computing_in(config.precision):
            self.model = training_classifier(config, num_classes, weights)
        for layer in every_layer(self.model):
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = config.sync_batch_norm
                # It is moved once for each part of a step.
                layer.momentum **= 1 / config.accumulation_steps
        self.optimizer = optimizer(config, steps_per_epoch)
        if config.precision == "float16":
            self.optimizer = keras.optimizers.LossScaleOptimizer(self.optimizer)
        self.optimizer.build(self.model.trainable_variables)
        weights = {id(weight) for weight in self.model.weights}
        self._seeds = [v for v in self.model.variables if id(v) not in weights]
        self.averages = [
            tf.Variable(weight.value, trainable=False)
            for weight in self.model.weights
            if config.ema_momentum
        ]
        trained = {id(variable) for variable in self.model.trainable_variables}
        self._statistics = [w.value for w in self.model.weights if id(w) not in trained]
        self._statistics += self.averages
        self._agree = tf.function(lambda: self._strategy.run(self._agree_on_replica))
        self._draw_apart()

    def average_weights(self, momentum: float) -> None:
        """Moves each average towards its weight; within a step, outside of the replicas.

        After n updates the momentum is at most (1 + n) / (10 + n), as in TensorFlow's
        `ExponentialMovingAverage`: else a short run would end near the weights that it began with.
        """
        updates = tf.cast(self.optimizer.iterations.value, tf.float32)
        share = tf.maximum(1 - momentum, 9 / (10 + updates))
        for average, weight in zip(self.averages, self.model.weights, strict=False):
            self._strategy.extended.update(
                average,
                lambda average, weight: average.assign_add(share * (weight - average)),
                args=(weight.value,),
            )

    def agree(self) -> None:
        """Averages, over the replicas, the statistics that each of them keeps for itself.

        To be called by all workers, before an evaluation and before a checkpoint. A moving
        average is linear in what it averages: how often it is done makes no difference.
        """
        if self._strategy.num_replicas_in_sync > 1 and self._statistics:
            self._agree()

    @contextmanager
    def evaluated(self) -> Iterator[keras.Model]:
        """The model as it is evaluated: with the averages as its weights, where there are some."""
        if not self.averages:
            yield self.model
            return
        trained = [weight.numpy() for weight in self.model.weights]
        try:
            _assign(self.model.weights, [average.numpy() for average in self.averages])
            yield self.model
        finally:
            _assign(self.model.weights, trained)

    def arrays(self) -> dict[str, np.ndarray]:
        """All that goes on with the run but is not in the model as it is evaluated."""
        return {
            f"{kind}/{number}": variable.numpy()
            for kind, variables in self._further_variables().items()
            for number, variable in enumerate(variables)
        }

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Takes back what `arrays` gave, after the model got the weights it is evaluated with."""
        _assign(
            self.averages, [weight.numpy() for weight in self.model.weights][: len(self.averages)]
        )
        for kind, variables in self._further_variables().items():
            _assign(variables, [arrays[f"{kind}/{number}"] for number in range(len(variables))])
        self._draw_apart()

    def _further_variables(self) -> dict[str, list[Any]]:
        return {
            "optimizer": self.optimizer.variables,
            "seed": self._seeds,
            "weight": self.model.weights if self.averages else [],
        }

    def _agree_on_replica(self) -> None:
        context = tf.distribute.get_replica_context()
        own = [tf.identity(variable) for variable in self._statistics]
        for variable, mean in zip(self._statistics, context.all_reduce("MEAN", own), strict=True):
            variable.assign(mean)

    def _draw_apart(self) -> None:
        """Lets each replica drop other units; a checkpoint holds the first one's seeds."""

        def of_replica() -> None:
            number = tf.distribute.get_replica_context().replica_id_in_sync_group
            for seed in self._seeds:
                seed.assign(seed + tf.cast([number, 0], seed.dtype))

        if self._seeds:
            tf.function(lambda: self._strategy.run(of_replica))()


@contextmanager
def _computing_in(precision: str) -> Iterator[None]:
    """Layers made in this context compute in a precision, from float32 weights."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(DTYPE_POLICIES[precision])
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _assign(variables: list[Any], values: list[np.ndarray]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
