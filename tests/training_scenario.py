"""Twenty steps and an evaluation on some devices, in a process of its own.

    python -m tests.training_scenario DATA DEVICES OUT

DATA holds the prepared digits. DEVICES is how many logical devices the processor is made into;
several workers are told of each other by TF_CONFIG. What comes of it the first worker writes to
OUT, a `.npz`.
"""

import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import keras_zoo
from keras_zoo import blocks, registry
from pipelines.data.streams import evaluation_stream, open_dataset, training_stream
from pipelines.evaluation.accuracy import count, counting_step
from pipelines.training.state import State
from pipelines.training.step import TrainingStep
from pipelines.training.strategy import Distribution, choose_distribution
from tests.conftest import digits_config

STEPS = 20
# With a batch of 24, the 356 images of the evaluation leave a ragged last batch.
COMMON = [
    "--global_batch_size=24",
    "--schedule.warmup_epochs=0",
    "--optimizer.base_lr=0.2",
    "--optimizer.clip_norm=0.5",
    "--optimizer.weight_decay=0.01",
    "--accumulation_steps=3",
    "--ema_momentum=0.9",
    "--label_smoothing=0.1",
]
CASES = {
    "without batch normalisation": ["--network=simple_cnn"],
    "with batch normalisation": ["--network=small_bn", "--sync_batch_norm=true"],
}


def small_bn(name, *, num_classes, input_shape, include_top, dropout):
    """Two convolutions with batch normalisation."""
    inputs = x = keras.Input(input_shape)
    for stage, filters in enumerate((8, 16), start=1):
        x = blocks.conv_bn_relu(x, filters, 3, stride=2, name=f"stage{stage}")
    return keras.Model(inputs, blocks.pooled_classifier(x, num_classes, dropout), name=name)


SMALL_BN = registry.Card(
    name="small_bn",
    builder="tests.training_scenario:small_bn",
    paper=None,
    input=keras_zoo.card("simple_cnn").input,
    parameters=1_474,
    gmacs=0.001,
    min_size_px=8,
    num_classes=10,
)


def in_parts(dataset, config):
    """One worker's stream, its batches divided among however many workers there are."""

    def stream(worker, num_workers):
        share = config.global_batch_size // num_workers
        begin = worker * share

        def part(images, labels):
            return images[begin : begin + share], labels[begin : begin + share]

        return training_stream(dataset, config, first_epoch=0).map(part)

    return stream


def scenario(data: Path, overrides: list[str], distribution: Distribution) -> dict[str, np.ndarray]:
    """What to compare: losses, counts, the clipped gradient, and the weights in the end."""
    config = digits_config(data, Path("unused"), *COMMON, *overrides)
    dataset = open_dataset(data)
    share = config.global_batch_size // distribution.num_workers
    keras.utils.set_random_seed(config.seed)
    with distribution.strategy.scope():
        state = State(config, 10, None, steps_per_epoch=60)
        step = TrainingStep(state, config, {config.input.size_px: state.model})
        counting = counting_step(state.model)
        batches = iter(distribution.spread(in_parts(dataset, config), share))
        totals = [step(*next(batches), stop=False)]
        # SGD's first velocity is the clipped gradient times the learning rate.
        velocity = [v.numpy() for v in state.optimizer.variables if "momentum" in v.path]
        totals += [step(*next(batches), stop=False) for _ in range(STEPS - 1)]

        def evaluation(worker, num_workers):
            return evaluation_stream(
                dataset, "validation", config.input, share, worker=worker, num_workers=num_workers
            )

        state.agree()
        with state.evaluated() as model:
            accuracy = count(counting, distribution.spread(evaluation, share))
            evaluated = [weight.numpy() for weight in model.weights]
    weights = [weight.numpy() for weight in state.model.weights]
    return {
        "loss": np.array([total.loss for total in totals]),
        "correct": np.array([total.correct for total in totals]),
        "counts": np.array([accuracy.n, accuracy.top1_correct, accuracy.top5_correct]),
        "val_loss": np.array(accuracy.loss),
        **{f"gradient/{number}": array for number, array in enumerate(velocity)},
        **{f"weight/{number}": array for number, array in enumerate(weights)},
        **{f"evaluated/{number}": array for number, array in enumerate(evaluated)},
    }


def main(data: Path, devices: int, out: Path) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    if devices > 1:
        parts = [tf.config.LogicalDeviceConfiguration()] * devices
        tf.config.set_logical_device_configuration(cpu, parts)
    registry.CARDS["small_bn"] = SMALL_BN
    distribution = choose_distribution(digits_config(data, Path("unused")))
    arrays = {
        f"{case}/{name}": array
        for case, overrides in CASES.items()
        for name, array in scenario(data, overrides, distribution).items()
    }
    if distribution.chief:
        np.savez(out, replicas=distribution.replicas, **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
