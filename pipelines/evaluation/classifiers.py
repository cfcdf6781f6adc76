"""What can be evaluated: a run, an exported model and a network with weights, all alike."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shlex import quote

import keras
import numpy as np
import tensorflow as tf
from scipy.special import softmax

from keras_zoo import InputSpec
from pipelines.config import EvaluateConfig
from pipelines.evaluation.predictions import Network
from pipelines.training.checkpoints import model_file
from pipelines.training.model import image_classifier, logits_of
from pipelines.training.run import Run
from pipelines.training.strategy import local_strategy


@dataclass(frozen=True)
class Classifier:
    """A trained network, and what evaluation has to know of it.

    Args:
        title: what a person calls it.
        input: what it sees of an image.
        class_names: the labels, in the order of its answers.
        data: the prepared data set that it was trained with, where that is known.
        split: of that, the images it is evaluated on.
        network: takes an `InputSpec` and gives uint8 pixels `(B, S, S, C)` of it -> probabilities
            `(B, num_classes)`; it may refuse other sizes than that of `input`.
        next: the command that goes on with it.
    """

    title: str
    input: InputSpec
    class_names: list[str]
    data: Path | None
    split: str
    network: Callable[[InputSpec], Network]
    next: str


def open_classifier(config: EvaluateConfig) -> Classifier:
    """The model that a config names.

    Raises:
        BadInput: it is none, or has no such checkpoint.
    """
    return _run(config)


def _run(config: EvaluateConfig) -> Classifier:
    """The checkpoint of a run."""
    run = Run.open(Path(config.model))
    trained, names = run.config(), run.class_names()
    file = model_file(run.checkpoint(config.checkpoint))

    def build(spec: InputSpec) -> keras.Model:
        return image_classifier(trained.network, spec, len(names), file)

    return Classifier(
        title=f"{config.model}, its {config.checkpoint} checkpoint",
        input=trained.input,
        class_names=names,
        data=trained.data,
        split=trained.validation_split,
        network=partial(on_all_devices, build),
        next=f"python -m pipelines.export {quote(str(config.model))} --out saved_models/NAME "
        f"--checkpoint {config.checkpoint}",
    )


def on_all_devices(build: Callable[[InputSpec], keras.Model], spec: InputSpec) -> Network:
    """A Keras model whose devices share the images of each batch.

    Args:
        build: makes a model that takes uint8 images and gives logits.
        spec: what it takes.
    """
    strategy = local_strategy()
    replicas = strategy.num_replicas_in_sync
    with strategy.scope():
        model = build(spec)

    @tf.function(reduce_retracing=True)
    def logits(pixels: tf.Tensor) -> tf.Tensor:
        return strategy.run(lambda own: logits_of(model(own, training=False)), args=(pixels,))

    def probabilities(pixels: np.ndarray) -> np.ndarray:
        blank = np.zeros((-len(pixels) % replicas, *spec.shape), np.uint8)
        shares = np.split(np.concatenate([pixels, blank]), replicas)
        spread = strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(shares[context.replica_id_in_sync_group])
        )
        of_replicas = strategy.experimental_local_results(logits(spread))
        joined = np.concatenate([each.numpy() for each in of_replicas])[: len(pixels)]
        # In double precision different logits stay different probabilities, and none becomes 0.
        return softmax(joined.astype(np.float64), axis=1)

    return probabilities
