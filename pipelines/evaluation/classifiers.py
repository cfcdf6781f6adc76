"""What can be evaluated: a run, an exported model and a network with weights, all alike."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shlex import quote

import numpy as np
import tensorflow as tf
from scipy.special import softmax

from keras_zoo import InputSpec, list_models, weight_sets
from keras_zoo.weights import num_stored_classes
from pipelines.config import EvaluateConfig, PredictConfig
from pipelines.errors import BadInput
from pipelines.evaluation.predictions import Network
from pipelines.exporting.card import CARD, LABELS, read_card
from pipelines.exporting.engines import open_engine
from pipelines.exporting.grad_cam import grad_cam
from pipelines.exporting.sources import synsets
from pipelines.exporting.versions import latest_version
from pipelines.training.checkpoints import model_file
from pipelines.training.model import image_classifier, logits_of
from pipelines.training.run import Run
from pipelines.training.strategy import local_strategy

Explainer = Callable[[np.ndarray, np.ndarray], tf.Tensor]

SAVED_MODEL = "savedmodel"
DEFAULT_SPLIT = "validation"
_SMALLEST = np.finfo(np.float32).tiny


@dataclass(frozen=True)
class Classifier:
    """A trained network, and what evaluation has to know of it.

    Args:
        title: what a person calls it.
        input: what it sees of an image.
        class_names: in the order of its answers.
        data: the prepared data set that it was trained with, where that is known.
        split: of that, the images it is evaluated on.
        network: takes an `InputSpec` and gives uint8 pixels `(B, S, S, C)` of it -> probabilities
            `(B, num_classes)`; it may refuse other sizes than that of `input`.
        explainer: gives where it looks: uint8 pixels `(B, S, S, C)`, int32 class ids `(B,)` ->
            Grad-CAM, float32 `(B, h, w)` in [0, 1].
        next: the command that goes on with it.
        named: whether data must have classes of these names, and not just as many.
        run: its folder, where it is a run.
    """

    title: str
    input: InputSpec
    class_names: list[str]
    data: Path | None
    split: str
    network: Callable[[InputSpec], Network]
    explainer: Callable[[], Explainer]
    next: str
    named: bool = True
    run: Path | None = None


def open_classifier(config: EvaluateConfig | PredictConfig) -> Classifier:
    """The model that a config names.

    Raises:
        BadInput: it is none, or has no such checkpoint or engine.
    """
    model = str(config.model)
    folder = Path(model)
    version = folder if (folder / CARD).is_file() else latest_version(folder)
    network, at, weights = model.partition("@")
    if version:
        return _exported(model, version, config.engine)
    if config.engine != SAVED_MODEL:
        raise BadInput(f"engine is {config.engine!r}, and {model!r} is no exported model")
    if at and network in list_models():
        return _network(model, network, weights)
    return _run(folder, config.checkpoint)


def _run(folder: Path, checkpoint: str) -> Classifier:
    """A checkpoint of a run."""
    try:
        run = Run.open(folder)
    except BadInput as error:
        raise BadInput(f"{error}; or give an exported model, or NETWORK@imagenet") from error
    trained, names = run.config(), run.class_names()
    file = model_file(run.checkpoint(checkpoint))
    return Classifier(
        title=f"{folder}, its {checkpoint} checkpoint",
        input=trained.input,
        class_names=names,
        data=trained.data,
        split=trained.validation_split,
        network=lambda spec: on_all_devices(
            trained.network, spec, len(names), file, width=trained.width
        ),
        explainer=lambda: partial(grad_cam, run.classifier(checkpoint)),
        next=f"python -m pipelines.export {quote(str(folder))} --out saved_models/NAME "
        f"--checkpoint {checkpoint}",
        run=folder,
    )


def _exported(model: str, version: Path, engine: str) -> Classifier:
    """One of the formats of an exported model."""
    card = read_card(version)
    if card is None:
        raise BadInput(f"{str(version)!r} has no {CARD}; python -m pipelines.export writes one")
    told = card["input"]
    spec = InputSpec(**told | {name: tuple(told[name]) for name in ("mean", "std")})

    def network(asked: InputSpec) -> Network:
        if asked != spec:
            raise BadInput(
                f"{model!r} takes images of {spec.size_px} px only; leave out sizes_px, or give "
                "the run it was exported from"
            )
        run = open_engine(version, engine)
        # A single-precision 0 may be any number below the smallest of single precision.
        return lambda pixels: np.maximum(run(pixels), _SMALLEST).astype(np.float64)

    def explainer() -> Explainer:
        loaded = tf.saved_model.load(version)
        # Variables live as long as what they were loaded into.
        return lambda pixels, class_ids: loaded.explain(pixels, class_ids)

    trained = card.get("train", {})
    return Classifier(
        title=f"{version} ({engine})",
        input=spec,
        class_names=(version / LABELS).read_text().split("\n")[:-1],
        data=Path(card["data"]) if card["data"] else None,
        split=trained.get("validation_split", DEFAULT_SPLIT),
        network=network,
        explainer=explainer,
        next=f"python -m pipelines.serve {quote(str(version.parent.parent))}",
    )


def _network(model: str, name: str, weights: str) -> Classifier:
    """A network with published weights, or those of a file; its classes have no names of its own.

    Data are known by the number of their classes alone.
    """
    try:
        spec, found = weight_sets.input_spec(name, weights), weight_sets.find(name, weights)
        published = isinstance(found, weight_sets.WeightSet)
        classes = len(synsets()) if published else num_stored_classes(found)
    except ValueError as error:
        raise BadInput(str(error)) from error
    if classes is None:
        raise BadInput(f"{weights!r} has no classifier; give weights that have one")
    return Classifier(
        title=model,
        input=spec,
        class_names=synsets() if classes == len(synsets()) else list(map(str, range(classes))),
        data=None,
        split=DEFAULT_SPLIT,
        network=lambda spec: on_all_devices(name, spec, classes, weights),
        explainer=lambda: partial(grad_cam, image_classifier(name, spec, classes, weights)),
        next=f"python -m pipelines.export {name} --init {quote(weights)} --out saved_models/NAME",
        named=False,
    )


def on_all_devices(
    network: str, spec: InputSpec, num_classes: int, weights: str | Path, *, width: float = 1.0
) -> Network:
    """A network of the zoo whose devices share the images of each batch.

    Raises:
        BadInput: weights that cannot be had, or are not of this network at this size.
    """
    strategy = local_strategy()
    replicas = strategy.num_replicas_in_sync
    with strategy.scope():
        model = image_classifier(network, spec, num_classes, weights, width=width)

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
