"""What each stage is told: frozen dataclasses, written and read as YAML.

Derived numbers are properties, never fields. Standard library only: a command's `--help` must not
import TensorFlow.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from keras_zoo import InputSpec, card, weight_sets


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


@dataclass(frozen=True)
class PrepareConfig:
    """From a pile of images to a TFDS data set on disk.

    Args:
        source: a folder of images, `tfds:NAME`, or `digits` (the scans scikit-learn carries).
        out: the folder to write; `tfds.builder_from_directory` reads it.
        holdout_fraction: share of the images that becomes `validation` where the source has no
            such split; chosen by content, so that adding images moves none across.
    """

    source: str
    out: Path
    holdout_fraction: float = 0.1

    def __post_init__(self) -> None:
        _require(
            0 < self.holdout_fraction < 1,
            f"holdout_fraction is {self.holdout_fraction}; it lies between 0 and 1",
        )


@dataclass(frozen=True)
class AugmentConfig:
    """How a training image differs from the file it comes from.

    Args:
        crop_area: smallest and largest share of the image's area that the random crop keeps.
        crop_aspect: smallest and largest ratio of the crop's width to its height.
        horizontal_flip: whether every second image, at random, is mirrored.
    """

    crop_area: tuple[float, float] = (0.08, 1.0)
    crop_aspect: tuple[float, float] = (0.75, 1.3333)
    horizontal_flip: bool = True

    def __post_init__(self) -> None:
        low, high = self.crop_area
        _require(0 < low <= high <= 1, f"crop_area is {self.crop_area}; 0 < low <= high <= 1")
        low, high = self.crop_aspect
        _require(0 < low <= high, f"crop_aspect is {self.crop_aspect}; 0 < low <= high")


@dataclass(frozen=True)
class OptimizerConfig:
    """SGD with momentum, linear warm-up and cosine decay to zero.

    Args:
        base_lr: learning rate for a global batch of 256; scaled linearly with the batch.
        momentum: SGD's momentum.
        nesterov: whether the momentum looks ahead.
        weight_decay: decoupled decay of the kernels, times the learning rate at each step; batch
            normalisation and biases have none.
        warmup_epochs: epochs over which the learning rate rises from zero to its peak.
    """

    base_lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-5
    warmup_epochs: float = 5.0

    def __post_init__(self) -> None:
        _require(self.base_lr > 0, f"base_lr is {self.base_lr}; it is above 0")
        _require(0 <= self.momentum < 1, f"momentum is {self.momentum}; it lies in [0, 1)")
        _require(self.weight_decay >= 0, f"weight_decay is {self.weight_decay}; at least 0")
        _require(self.warmup_epochs >= 0, f"warmup_epochs is {self.warmup_epochs}; at least 0")


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    Args:
        network: a name from `python -m keras_zoo list`.
        data: a folder that `pipelines.prepare` wrote.
        weights: what to start from: a published set (`imagenet`) or a file, as `keras_zoo.build`
            takes it; fresh unless given. The classifier stays fresh for other classes.
        run: the folder of this run; an existing one resumes.
        train_split: what to train on, in TFDS's notation (`train`, `train[:90%]`).
        validation_split: what to measure after every epoch.
        input: what the network sees of an image; that of the weights, or the network's own, unless
            given.
        augment: how training images are varied.
        optimizer: optimizer and learning-rate schedule.
        epochs: passes over the training split; the learning rate's schedule is this long.
        stop_after_epochs: ends the run early, its schedule unchanged; a later run goes on.
        global_batch_size: images a step, over all devices.
        label_smoothing: share of the label spread evenly over all classes, in [0, 1).
        shuffle_buffer: encoded images held in memory to draw the next one from.
        seed: of the weights, the order and every augmentation.
    """

    data: Path
    network: str = "resnet50"
    weights: str | None = None
    run: Path = Path("runs/resnet50")
    train_split: str = "train"
    validation_split: str = "validation"
    input: InputSpec = field(default_factory=InputSpec)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    epochs: int = 90
    stop_after_epochs: int | None = None
    global_batch_size: int = 256
    label_smoothing: float = 0.1
    shuffle_buffer: int = 16_384
    seed: int = 0

    def __post_init__(self) -> None:
        smallest_px = card(self.network).min_size_px
        _require(
            self.input.size_px >= smallest_px,
            f"input.size_px is {self.input.size_px}; {self.network} needs at least {smallest_px}",
        )
        _require(self.epochs >= 1, f"epochs is {self.epochs}; at least 1")
        _require(
            1 <= self.last_epoch <= self.epochs,
            f"stop_after_epochs is {self.stop_after_epochs}; from 1 to the {self.epochs} epochs",
        )
        _require(
            self.global_batch_size >= 1,
            f"global_batch_size is {self.global_batch_size}; at least 1",
        )
        _require(
            0 <= self.label_smoothing < 1,
            f"label_smoothing is {self.label_smoothing}; it lies in [0, 1)",
        )
        _require(0 <= self.seed < 2**32, f"seed is {self.seed}; from 0 to 2**32 - 1")
        _require(self.shuffle_buffer >= 1, f"shuffle_buffer is {self.shuffle_buffer}; at least 1")
        _require(
            self.optimizer.warmup_epochs < self.epochs,
            f"optimizer.warmup_epochs is {self.optimizer.warmup_epochs}, not below the "
            f"{self.epochs} epochs; give a smaller --optimizer.warmup_epochs",
        )

    @property
    def last_epoch(self) -> int:
        """The epoch after which the run ends, from 1."""
        return self.epochs if self.stop_after_epochs is None else self.stop_after_epochs

    @property
    def peak_lr(self) -> float:
        """The learning rate after warm-up: `base_lr` scaled linearly with the batch."""
        return self.optimizer.base_lr * self.global_batch_size / 256


def network_defaults(network: str, weights: str | None) -> dict[str, Any]:
    """What a `TrainConfig` takes from its network and weights where nothing else is given."""
    seen = card(network).input if weights is None else weight_sets.input_spec(network, weights)
    return {"input": dataclasses.asdict(seen), "run": f"runs/{network}"}


@dataclass(frozen=True)
class EvaluateConfig:
    """Accuracy of a run over every image of a split, each counted once.

    Args:
        run: a folder that `pipelines.train` wrote.
        data: a prepared data set with the same classes; the run's own unless given.
        split: what to measure, in TFDS's notation; the run's validation split unless given.
        batch_size: images at a time; the result does not depend on it.
    """

    run: Path
    data: Path | None = None
    split: str | None = None
    batch_size: int = 64

    def __post_init__(self) -> None:
        _require(self.batch_size >= 1, f"batch_size is {self.batch_size}; at least 1")


@dataclass(frozen=True)
class ExportConfig:
    """From a run to a SavedModel that takes image files and answers with labels.

    Args:
        run: a folder that `pipelines.train` wrote.
        out: the model's folder; its versions are 1, 2, ...
        top_k: labels in an answer.
    """

    run: Path
    out: Path
    top_k: int = 5

    def __post_init__(self) -> None:
        _require(self.top_k >= 1, f"top_k is {self.top_k}; at least 1")


@dataclass(frozen=True)
class ServeConfig:
    """An HTTP server over exported models, speaking TensorFlow Serving's REST API.

    Args:
        models: the folder of models: `<models>/<name>/<version>/`.
        host: the address to listen on.
        port: the port to listen on; 8501 is TensorFlow Serving's.
    """

    models: Path = Path("saved_models")
    host: str = "127.0.0.1"
    port: int = 8501

    def __post_init__(self) -> None:
        _require(0 <= self.port < 65_536, f"port is {self.port}; from 0 (any free one) to 65535")


@dataclass(frozen=True)
class WorkflowConfig:
    """The whole way: prepare, train, evaluate, export.

    Args:
        prepare: the data.
        train: the run; its data is what prepare writes.
        export: the SavedModel; its run is what train writes.
    """

    prepare: PrepareConfig
    train: TrainConfig
    export: ExportConfig

    links: ClassVar = {"prepare.out": "train.data", "train.run": "export.run"}
