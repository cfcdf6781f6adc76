"""Keras's optimizers, in which variables differ: kernels decay, and depths learn at their own rate.

Decay comes in two kinds. Coupled (`l2`): the gradient of `l2 / 2 * |w|**2` joins that of the loss,
and goes through the momentum with it: the L2 penalty of the papers up to 2017. Decoupled
(`weight_decay`): the weight shrinks by `learning_rate * weight_decay * w` beside the optimizer's
step (Loshchilov, Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, arXiv:1711.05101).
Biases and batch normalisation have neither.

A rate of a variable's own multiplies the learning rate of its step. Every optimizer here is linear
in that, momentum included, so that the whole update is multiplied, decay and all. (Multiplying the
gradient instead would change nothing in an optimizer that divides by the gradient's size.)
"""

from dataclasses import dataclass

import keras
import tensorflow as tf
from keras import ops

from pipelines.config import TrainConfig
from pipelines.training.schedules import learning_rate

# The one variable of a convolution or dense layer that is not a bias.
DECAYING = "kernel"
# What the names of the classifiers' layers begin with: the network's own, and the auxiliary ones.
HEADS = ("logits", "aux")


def depth_group(layer: str) -> str:
    """What the names of one depth's layers begin with: `stage1` of `stage1_block1_1_conv`."""
    return layer.partition("_")[0]


def _group(variable: keras.Variable) -> str:
    return depth_group(variable.path.split("/")[-2])


@dataclass(frozen=True)
class Treatment:
    """What a step does to a variable, beside what the gradient asks for.

    Args:
        l2: coupled decay of kernels.
        weight_decay: decoupled decay of kernels.
        depth_factor: the rate of a depth group is this times that of the group after it; that of
            the heads is 1.
        head_only_steps: steps at the start in which the rate of all but the heads is 0.
    """

    l2: float = 0.0
    weight_decay: float = 0.0
    depth_factor: float = 1.0
    head_only_steps: int = 0


class Treated:
    """Comes before an optimizer of Keras's among the bases of a class, and applies a `Treatment`.

    Args:
        learning_rate: a schedule.
        treatment: what is done to the variables.
        settings: the optimizer's own.
    """

    def __init__(
        self,
        learning_rate: keras.optimizers.schedules.LearningRateSchedule,
        treatment: Treatment,
        **settings: float | bool,
    ) -> None:
        super().__init__(learning_rate, **settings)
        self.treatment = treatment

    def build(self, variables: list[keras.Variable]) -> None:
        """Finds the depth groups: variables come in the order of their layers."""
        groups = list(dict.fromkeys(_group(variable) for variable in variables))
        body = [group for group in groups if not group.startswith(HEADS)]
        factor = self.treatment.depth_factor
        self.rates = {group: factor ** (len(body) - at) for at, group in enumerate(body)}
        super().build(variables)

    def update_step(
        self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor
    ) -> None:
        """Changes a variable by its gradient: what Keras calls for each."""
        of_model = self._trainable_variables[self._get_variable_index(variable)]
        rate = learning_rate * self._rate(_group(of_model))
        if of_model.name != DECAYING:
            self.step(gradient, variable, rate, weight_decay=None)
            return
        if self.treatment.l2:
            gradient = gradient + self.treatment.l2 * variable
        self.step(gradient, variable, rate, self.treatment.weight_decay)

    def step(
        self,
        gradient: tf.Tensor,
        variable: tf.Variable,
        rate: tf.Tensor,
        weight_decay: float | None,
    ) -> None:
        """The optimizer's own step, beside decoupled decay; None for what never decays."""
        if weight_decay:
            self.assign_sub(variable, rate * weight_decay * variable)
        super().update_step(gradient, variable, rate)

    def _rate(self, group: str) -> tf.Tensor | float:
        if group not in self.rates:
            return 1.0
        rate = self.rates[group]
        if not self.treatment.head_only_steps:
            return rate
        return ops.where(self.iterations < self.treatment.head_only_steps, 0.0, rate)


class SGD(Treated, keras.optimizers.SGD):
    """Momentum as Keras has it: the learning rate is inside."""


class RMSprop(Treated, keras.optimizers.RMSprop):
    """As Inception v3 was trained with it; TensorFlow's of 2015 began with a mean square of one."""


class Lamb(Treated, keras.optimizers.Lamb):
    """LAMB (You et al., ICLR 2020, arXiv:1904.00962), Algorithm 2.

    Keras's own leaves the decay out of the step whose length is fitted to the weight's, so that the
    same `weight_decay` is as much stronger as the step was shortened, and it fits the steps of
    biases and batch normalisation too. Here, as in timm, which "ResNet strikes back" was trained
    with, decay is part of the step, and what never decays makes Adam's step.
    """

    def step(
        self,
        gradient: tf.Tensor,
        variable: tf.Variable,
        rate: tf.Tensor,
        weight_decay: float | None,
    ) -> None:
        index = self._get_variable_index(variable)
        mean, square = self._momentums[index], self._velocities[index]
        number = ops.cast(self.iterations + 1, variable.dtype)
        self.assign_add(mean, (1 - self.beta_1) * (gradient - mean))
        self.assign_add(square, (1 - self.beta_2) * (ops.square(gradient) - square))
        step = mean / (1 - self.beta_1**number)
        step /= ops.sqrt(square / (1 - self.beta_2**number)) + self.epsilon
        if weight_decay is not None:
            step += weight_decay * variable
            length, weight = tf.norm(step), tf.norm(variable)
            fits = ops.logical_and(length > 0, weight > 0)
            step *= ops.where(fits, ops.divide_no_nan(weight, length), 1.0)
        self.assign_sub(variable, rate * step)


# What each optimizer takes of the config, under Keras's names.
OPTIMIZERS: dict[str, tuple[type[Treated], dict[str, str]]] = {
    "sgd": (SGD, {"momentum": "momentum", "nesterov": "nesterov"}),
    "rmsprop": (RMSprop, {"momentum": "momentum", "rho": "rho", "epsilon": "epsilon"}),
    "lamb": (Lamb, {"beta_1": "momentum", "epsilon": "epsilon"}),
}


def optimizer(config: TrainConfig, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """Keras's optimizer with its schedule; it neither clips nor averages, which the loop does."""
    kind, settings = OPTIMIZERS[config.optimizer.name]
    treatment = Treatment(
        l2=config.optimizer.l2,
        weight_decay=config.optimizer.weight_decay,
        depth_factor=config.fine_tuning.depth_factor,
        head_only_steps=round(config.fine_tuning.head_only_epochs * steps_per_epoch),
    )
    taken = {name: getattr(config.optimizer, field) for name, field in settings.items()}
    return kind(learning_rate(config, steps_per_epoch), treatment, **taken)
