"""One update of the weights, the same for any number of devices and machines."""

from typing import NamedTuple

import keras
import tensorflow as tf

from pipelines.config import TrainConfig
from pipelines.training.losses import example_losses
from pipelines.training.model import logits_of
from pipelines.training.state import State


class Totals(NamedTuple):
    """What a step comes to over the whole batch, each a float.

    Args:
        loss: the mean of the examples' losses, and the model's own.
        correct: images whose label came first.
        squared_norm: of each replica's share of the gradient, summed; finite where they are.
        stops: devices whose worker was asked to stop.
    """

    loss: float
    correct: float
    squared_norm: float
    stops: float


class TrainingStep:
    """The compiled step. Made within the scope of the strategy.

    Each replica takes its images, in `accumulation_steps` parts of which part p is every so
    manyth image from p on: so a part holds the same images on any number of devices. Losses
    are summed and divided by the global batch. Where something is not finite, nothing is
    updated (under float16, the loss scale decides that for gradients).

    Args:
        state: what is trained.
        config: the run's.
        models: the state's model by the side of the images that it takes, in pixels.
    """

    def __init__(self, state: State, config: TrainConfig, models: dict[int, keras.Model]) -> None:
        self._state = state
        self._config = config
        self._models = models
        self._strategy = tf.distribute.get_strategy()
        self._losses = example_losses(config)
        self._variables = state.model.trainable_variables
        self._sums = [
            tf.Variable(
                tf.zeros_like(variable.value),
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.SUM,
            )
            for variable in self._variables
            if config.accumulation_steps > 1
        ]
        self._compiled = tf.function(self._step)

    def __call__(self, images: tf.Tensor, labels: tf.Tensor, *, stop: bool) -> Totals:
        """Trains on one batch.

        Args:
            images: uint8 `(B, S, S, C)`, or such a batch for each replica.
            labels: float32 `(B, K)`, alike.
            stop: whether this worker was asked to stop; all learn of it.
        """
        totals = self._compiled(images, labels, tf.constant(float(stop)))
        return Totals(*totals.numpy().tolist())

    def _step(self, images: tf.Tensor, labels: tf.Tensor, stop: tf.Tensor) -> tf.Tensor:
        """Across replicas: their gradients, and then one update of all."""
        earlier = tf.zeros(4)
        if self._sums:
            for part in tf.range(self._config.accumulation_steps - 1):
                earlier += self._total(self._strategy.run(self._accumulate, (part, images, labels)))
        gradients, totals = self._strategy.run(self._last_part, (images, labels, stop))
        totals = earlier + self._total(totals)
        if tf.reduce_all(tf.math.is_finite(totals)):
            self._strategy.run(self._update, (gradients,))
            self._state.average_weights(self._config.ema_momentum)
        return totals

    def _total(self, of_replicas: tf.Tensor) -> tf.Tensor:
        return self._strategy.reduce("SUM", of_replicas, axis=None)

    def _accumulate(self, part: tf.Tensor, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """On a replica: adds a part's gradients to the sums."""
        gradients, totals = self._part(part, images, labels)
        for total, gradient in zip(self._sums, gradients, strict=True):
            total.assign_add(gradient)
        return totals

    def _last_part(
        self, images: tf.Tensor, labels: tf.Tensor, stop: tf.Tensor
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """On a replica: the gradients of all parts, and the last part's totals."""
        gradients, totals = self._part(self._config.accumulation_steps - 1, images, labels)
        if self._sums:
            gradients = [sum_ + part for sum_, part in zip(self._sums, gradients, strict=True)]
            for sum_ in self._sums:
                sum_.assign(tf.zeros_like(sum_))
        squared_norm = 2 * tf.add_n([tf.nn.l2_loss(gradient) for gradient in gradients])
        if self._config.precision == "float16":
            # The scale falls until gradients are finite; those that never are, are told below 1.
            scale = self._state.optimizer.scale_loss(1.0)
            squared_norm = tf.where(scale < 1, squared_norm, 0.0)
        return gradients, totals + tf.stack([0.0, 0.0, squared_norm, stop])

    def _part(
        self, part: tf.Tensor | int, images: tf.Tensor, labels: tf.Tensor
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """On a replica: a part's share of the gradients and of the totals."""
        parts, batch = self._config.accumulation_steps, self._config.global_batch_size
        model = self._models[images.shape[1]]
        images, labels = images[part::parts], labels[part::parts]
        with tf.GradientTape() as tape:
            outputs = model(images, training=True)
            loss = tf.reduce_sum(self._losses(labels, outputs)) / batch
            if model.losses:
                loss += tf.add_n(model.losses) / (parts * self._strategy.num_replicas_in_sync)
            scaled = self._state.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, [variable.value for variable in self._variables])
        right = tf.argmax(logits_of(outputs), axis=1) == tf.argmax(labels, axis=1)
        correct = tf.math.count_nonzero(right, dtype=tf.float32)
        return gradients, tf.stack([loss, correct, 0.0, 0.0])

    def _update(self, gradients: list[tf.Tensor]) -> None:
        """On a replica: clips and applies; the optimizer sums the gradients over the replicas."""
        if self._config.optimizer.clip_norm or self._config.precision == "float16":
            kept = self._kept_share(gradients)
            gradients = [gradient * kept for gradient in gradients]
        self._state.optimizer.apply(gradients, self._variables)

    def _kept_share(self, gradients: list[tf.Tensor]) -> tf.Tensor:
        """What to multiply each replica's gradients with, so that their sum is clipped.

        NaN where the sum is not finite: under float16 all replicas are then to skip the update,
        and each looks at its own gradients only.
        """
        summed = tf.distribute.get_replica_context().all_reduce("SUM", gradients)
        norm = tf.linalg.global_norm(summed) / self._state.optimizer.scale_loss(1.0)
        clip_norm = self._config.optimizer.clip_norm
        kept = tf.minimum(1.0, tf.math.divide_no_nan(clip_norm, norm)) if clip_norm else 1.0
        return tf.where(tf.math.is_finite(norm), kept, float("nan"))
