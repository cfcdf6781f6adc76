"""What each stage is told: frozen dataclasses, written and read as YAML.

Derived numbers are properties, never fields. Standard library only: a command's `--help` must not
import TensorFlow.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from keras_zoo import InputSpec, card, weight_sets

POLICIES = ("none", "randaugment", "trivial_augment_wide", "autoaugment")
# The highest value of each strength; zero is none.
AUGMENT_STRENGTHS = {
    "randaugment_magnitude": 30,
    "colour_jitter": 1,
    "inception_colour": 1,
    "pca_lighting": 1,
    "erasing_probability": 1,
    "mixup_alpha": 10,
    "cutmix_alpha": 10,
}


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


class Kind(NamedTuple):
    """Something that cleaning finds: how it is handled unless told otherwise, and what it means.

    Args:
        handling: the default, `drop`, `rewrite` (as an upright RGB JPEG) or `keep`.
        allowed: the handlings there are to choose from.
        meaning: what a person reads beside the count.
    """

    handling: str
    allowed: tuple[str, ...]
    meaning: str


_UNREADABLE = ("drop",)
_FORMAT = ("keep", "rewrite", "drop")
_PICTURE = ("keep", "drop")

# In this order a file is given its one reason where it has several. What compares images with one
# another drops from `train` only: an evaluation split stays what its publisher made it.
KINDS = {
    "zero_byte": Kind("drop", _UNREADABLE, "a file without content"),
    "not_an_image": Kind("drop", _UNREADABLE, "no image format begins like this"),
    "decompression_bomb": Kind("drop", _UNREADABLE, "more pixels than Pillow thinks safe"),
    "truncated": Kind("drop", _UNREADABLE, "the file ends before the image does"),
    "corrupt": Kind("drop", _UNREADABLE, "the decoder gives up inside the image"),
    "damaged": Kind("drop", _PICTURE, "the decoder goes on, with wrong pixels"),
    "foreign_format": Kind("rewrite", ("rewrite", "drop"), "a format the stream cannot decode"),
    "too_small": Kind("drop", _PICTURE, "the short side is under min_side_px"),
    "leak": Kind("drop", _PICTURE, "the same bytes in another split"),
    "two_labels": Kind("drop", _PICTURE, "the same bytes under two labels"),
    "exact_duplicate": Kind("drop", _PICTURE, "the same bytes again, one copy stays"),
    "near_leak": Kind("keep", _PICTURE, "looks like an image of another split"),
    "near_duplicate": Kind("keep", _PICTURE, "looks like an image of the same split"),
    "cmyk": Kind("keep", _FORMAT, "ink colours; the stream converts them"),
    "wrong_extension": Kind("keep", _FORMAT, "the name says another format"),
    "greyscale": Kind("keep", _FORMAT, "one channel; the stream repeats it"),
    "alpha": Kind("keep", _FORMAT, "transparency; the stream ignores it"),
    "exif_orientation": Kind("keep", _FORMAT, "to be turned; the stream does not"),
}

ON_BAD = ("drop", "fail", "keep")


@dataclass(frozen=True)
class PrepareConfig:
    """From a pile of images to a clean TFDS data set on disk.

    Args:
        source: a folder of images, of Tiny ImageNet or of the ILSVRC2012 archives; a `.csv` or
            `.jsonl` manifest; `tfds:NAME`; or `digits` (the scans scikit-learn carries).
        out: the folder to write; `tfds.builder_from_directory` reads it. Until it is finished, the
            disk holds the images twice.
        tests: further test sets by the name of their split, each a source of its own with the
            same classes: `--tests.imagenet_v2 FOLDER`.
        manual_dir: where the archives lie that `tfds:NAME` asks to be fetched by hand.
        holdout_fraction: share of the images that becomes `validation` where the source has no
            such split; chosen by content, so that adding images moves none across.
        minival: share of `train` that becomes `minival`, to tune on; by content too.
        folds: splits `train` by content into `fold0`, `fold1`, ...; 1 leaves it whole.
        on_bad: whether what is to be dropped is dropped, makes the command fail, or is kept as
            far as it decodes.
        handling: by kind, `drop`, `rewrite` or `keep`: `--handling.exif_orientation rewrite`.
        min_side_px: an image whose short side is under this is `too_small`.
        short_side_px: images are shrunk to this short side; the bytes are kept as they are
            unless given.
        quality: JPEG quality of what is rewritten, 1 to 100.
        workers: processes that read, decode and write; as many as there are cores unless given.
        runner: the Apache Beam runner that does the work instead (`DirectRunner`, `FlinkRunner`,
            ...); its workers see the source and `out` under the same paths as this command. Needs
            the extra `beam`.
        beam_options: options of the runner: `--beam_options.flink_master HOST:PORT`, and
            `[A,B]` for one that is given several times.
    """

    source: str
    out: Path
    tests: dict[str, str] = field(default_factory=dict)
    manual_dir: Path | None = None
    holdout_fraction: float = 0.1
    minival: float = 0.0
    folds: int = 1
    on_bad: str = "drop"
    handling: dict[str, str] = field(default_factory=dict)
    min_side_px: int = 8
    short_side_px: int | None = None
    quality: int = 90
    workers: int | None = None
    runner: str | None = None
    beam_options: dict[str, bool | int | str | list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require(
            0 < self.holdout_fraction < 1,
            f"holdout_fraction is {self.holdout_fraction}; it lies between 0 and 1",
        )
        _require(
            0 <= self.minival < 1,
            f"minival is {self.minival}; it lies in [0, 1)",
        )
        _require(self.folds >= 1, f"folds is {self.folds}; at least 1")
        _require(self.on_bad in ON_BAD, f"on_bad is {self.on_bad!r}; one of {', '.join(ON_BAD)}")
        _require(self.min_side_px >= 1, f"min_side_px is {self.min_side_px}; at least 1")
        _require(
            self.short_side_px is None or self.short_side_px >= self.min_side_px,
            f"short_side_px is {self.short_side_px}; at least min_side_px, {self.min_side_px}",
        )
        _require(1 <= self.quality <= 100, f"quality is {self.quality}; from 1 to 100")
        _require(
            self.workers is None or self.workers >= 1, f"workers is {self.workers}; at least 1"
        )
        _require(
            self.runner is None or self.workers is None,
            f"workers is {self.workers}; the runner {self.runner!r} has workers of its own",
        )
        _require(
            self.runner is not None or not self.beam_options,
            f"beam_options has {', '.join(self.beam_options)} and runner is not given",
        )
        for kind, handling in self.handling.items():
            _require(kind in KINDS, f"handling has {kind!r}; the kinds are {', '.join(KINDS)}")
            allowed = KINDS[kind].allowed
            _require(
                handling in allowed,
                f"handling.{kind} is {handling!r}; one of {', '.join(allowed)}",
            )
        for name in self.tests:
            taken = name in ("train", "validation", "minival") or name.startswith("fold")
            _require(
                name.isidentifier() and not taken,
                f"tests has {name!r}; letters, digits and _, and not the name of another split",
            )

    def handling_of(self, kind: str) -> str:
        """`drop`, `rewrite` or `keep`, whatever `on_bad` makes of the first."""
        return self.handling.get(kind, KINDS[kind].handling)


@dataclass(frozen=True)
class AugmentConfig:
    """How a training image differs from the file it comes from.

    Args:
        crop_area: smallest and largest share of the image's area that the random crop keeps.
        crop_aspect: smallest and largest ratio of the crop's width to its height.
        scale_jitter_px: smallest and largest short side to resize to before a square is cut at
            random, VGG's way; replaces the crop by area and aspect.
        horizontal_flip: whether every second image, at random, is mirrored.
        policy: `none`, `randaugment`, `trivial_augment_wide` or `autoaugment` (ImageNet's).
        randaugment_layers: ops that RandAugment applies one after another.
        randaugment_magnitude: how strong they are, from 0 to 30.
        colour_jitter: brightness, contrast and saturation change by up to this share.
        inception_colour: Inception's colour distortion; 1 is as published, 0 none.
        pca_lighting: AlexNet's lighting noise; its standard deviation, 0.1 as published.
        erasing_probability: share of the images in which a rectangle becomes noise.
        mixup_alpha: mixup's Beta distribution (0.2 as published); 0 is off.
        cutmix_alpha: cutmix's Beta distribution (1 as published); 0 is off. Where both are on,
            each batch is mixed one way or the other.
        first_size_px: side of the images in the first epoch; it grows evenly, in steps of 32, to
            the network's own in the last. The network's own throughout unless given.
    """

    crop_area: tuple[float, float] = (0.08, 1.0)
    crop_aspect: tuple[float, float] = (0.75, 1.3333)
    scale_jitter_px: tuple[int, int] | None = None
    horizontal_flip: bool = True
    policy: str = "none"
    randaugment_layers: int = 2
    randaugment_magnitude: float = 9.0
    colour_jitter: float = 0.0
    inception_colour: float = 0.0
    pca_lighting: float = 0.0
    erasing_probability: float = 0.0
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    first_size_px: int | None = None

    def __post_init__(self) -> None:
        low, high = self.crop_area
        _require(0 < low <= high <= 1, f"crop_area is {self.crop_area}; 0 < low <= high <= 1")
        low, high = self.crop_aspect
        _require(0 < low <= high, f"crop_aspect is {self.crop_aspect}; 0 < low <= high")
        low, high = self.scale_jitter_px or (1, 1)
        _require(0 < low <= high, f"scale_jitter_px is {self.scale_jitter_px}; 0 < low <= high")
        _require(self.policy in POLICIES, f"policy is {self.policy!r}; one of {POLICIES}")
        _require(
            self.randaugment_layers >= 1,
            f"randaugment_layers is {self.randaugment_layers}; at least 1",
        )
        for name, highest in AUGMENT_STRENGTHS.items():
            given = getattr(self, name)
            _require(0 <= given <= highest, f"{name} is {given}; from 0 to {highest:g}")
        _require(
            self.first_size_px is None or self.first_size_px >= 1,
            f"first_size_px is {self.first_size_px}; at least 1",
        )

    @property
    def mixes(self) -> bool:
        """Whether images of a batch are mixed with each other."""
        return self.mixup_alpha > 0 or self.cutmix_alpha > 0

    @property
    def colours(self) -> bool:
        """Whether colours change, which takes images that have some."""
        return self.policy != "none" or any(
            (self.colour_jitter, self.inception_colour, self.pca_lighting)
        )


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
        decode_threads: images decoded and augmented at a time; one for each core unless given.
        data_service: `grpc://HOST:PORT` of a tf.data service that prepares the images
            (`python -m pipelines.data_service`); this process does unless given.
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
    decode_threads: int | None = None
    data_service: str | None = None
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
            self.decode_threads is None or self.decode_threads >= 1,
            f"decode_threads is {self.decode_threads}; at least 1",
        )
        _require(
            self.data_service is None or self.data_service.startswith("grpc://"),
            f"data_service is {self.data_service!r}; grpc://HOST:PORT",
        )
        _require(
            self.input.num_channels == 3 or not self.augment.colours,
            f"augment changes colours and input.channels is {self.input.channels!r}; set "
            "augment.policy to none and the colour strengths to 0, or take RGB",
        )
        _require(
            min(self.augment.scale_jitter_px or [self.input.size_px]) >= self.input.size_px,
            f"augment.scale_jitter_px is {self.augment.scale_jitter_px}; neither is below "
            f"input.size_px, {self.input.size_px}",
        )
        _require(
            smallest_px <= self.size_px(0) <= self.input.size_px,
            f"augment.first_size_px is {self.augment.first_size_px}; from {smallest_px} to "
            f"input.size_px, {self.input.size_px}",
        )
        _require(
            self.optimizer.warmup_epochs < self.epochs,
            f"optimizer.warmup_epochs is {self.optimizer.warmup_epochs}, not below the "
            f"{self.epochs} epochs; give a smaller --optimizer.warmup_epochs",
        )

    @property
    def last_epoch(self) -> int:
        """The epoch after which the run ends, from 1."""
        return self.epochs if self.stop_after_epochs is None else self.stop_after_epochs

    def size_px(self, epoch: int) -> int:
        """The side of the training images of an epoch, from 0: even growth, in steps of 32."""
        first, last = self.augment.first_size_px, self.input.size_px
        if first is None or epoch >= self.epochs - 1:
            return last
        return first + (last - first) * epoch // (self.epochs - 1) // 32 * 32

    @property
    def peak_lr(self) -> float:
        """The learning rate after warm-up: `base_lr` scaled linearly with the batch."""
        return self.optimizer.base_lr * self.global_batch_size / 256


def network_defaults(network: str, weights: str | None) -> dict[str, Any]:
    """What a `TrainConfig` takes from its network and weights where nothing else is given."""
    seen = card(network).input if weights is None else weight_sets.input_spec(network, weights)
    return {"input": dataclasses.asdict(seen), "run": f"runs/{network}"}


@dataclass(frozen=True)
class InspectConfig:
    """A prepared data set on one page: counts, sizes, classes, and what the network will see.

    Args:
        data: a folder that `pipelines.prepare` wrote.
        train: the run to look ahead to; its input and augmentation decide what is seen.
        out: the page to write, `.html`; the grid of images is a `.png` beside it.
        sample: images of each split to measure at most; the records lie in random order.
        grid_images: training images to show.
    """

    data: Path
    train: TrainConfig
    out: Path = Path("inspection.html")
    sample: int = 20_000
    grid_images: int = 40

    links: ClassVar = {"data": "train.data"}

    def __post_init__(self) -> None:
        _require(self.out.suffix == ".html", f"out is {str(self.out)!r}; it ends in .html")
        _require(self.sample >= 1, f"sample is {self.sample}; at least 1")
        _require(self.grid_images >= 1, f"grid_images is {self.grid_images}; at least 1")


@dataclass(frozen=True)
class InputBenchmarkConfig(TrainConfig):
    """What limits the stream of images of a training run: takes what `pipelines.train` takes."""


@dataclass(frozen=True)
class DataServiceConfig:
    """A tf.data service that prepares training images: a dispatcher and workers.

    Args:
        join: `grpc://HOST:PORT` of a dispatcher that runs already; a new one unless given.
        host: the name or address under which others reach this machine.
        port: the new dispatcher's port.
        workers: workers in this process; one uses all cores.
    """

    join: str | None = None
    host: str = "127.0.0.1"
    port: int = 5050
    workers: int = 1

    def __post_init__(self) -> None:
        _require(
            self.join is None or self.join.startswith("grpc://"),
            f"join is {self.join!r}; grpc://HOST:PORT",
        )
        _require(0 < self.port < 65_536, f"port is {self.port}; from 1 to 65535")
        _require(self.workers >= 0, f"workers is {self.workers}; at least 0")


@dataclass(frozen=True)
class EvaluateConfig:
    """Accuracy of a run over every image of a split, each counted once.

    Args:
        run: a folder that `pipelines.train` wrote.
        data: a prepared data set with the same classes; the run's own unless given.
        split: what to measure, in TFDS's notation; the run's validation split unless given.
        real_labels: ImageNet-ReaL's `real.json`, to measure top-1 against as well, in a second
            pass; for ILSVRC2012's validation images under the names they were published with.
        batch_size: images at a time; the result does not depend on it.
    """

    run: Path
    data: Path | None = None
    split: str | None = None
    real_labels: Path | None = None
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
