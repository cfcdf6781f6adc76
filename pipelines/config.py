"""What each stage is told: frozen dataclasses, written and read as YAML.

Derived numbers are properties, never fields. Standard library only: a command's `--help` must not
import TensorFlow.
"""

import dataclasses
import math
import re
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from keras_zoo import InputSpec, card, weight_sets
from keras_zoo.input_spec import CHANNELS

POLICIES = ("none", "randaugment", "trivial_augment_wide", "autoaugment")
OPTIMIZERS = ("sgd", "rmsprop", "lamb")
SCHEDULES = ("constant", "step", "exponential", "cosine", "polynomial")
LOSSES = ("softmax", "binary")
PRECISIONS = ("float32", "bfloat16", "float16")
ON_NAN = ("stop", "rollback")
ON_DISK_FULL = ("stop", "go_on")
CHECKPOINTS = ("newest", "best")
EXPORT_FORMATS = ("savedmodel", "onnx", "litert", "openvino")
# The formats in which there is each way to compress.
COMPRESSIONS = {
    "int8": ("onnx", "litert", "openvino"),
    "dynamic": ("onnx", "litert"),
    "float16": ("litert", "openvino"),
}
ENGINES = (
    *EXPORT_FORMATS,
    *(f"{name}-{how}" for how, able in COMPRESSIONS.items() for name in able),
)
VIEWS = ("centre", "flip", "ten_crops", "multi_scale")
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


def require_addresses(name: str, addresses: list[str]) -> None:
    """Each is `HOST:PORT`, and each another one.

    Raises:
        ValueError: with the first that is not.
    """
    for number, address in enumerate(addresses):
        port = re.fullmatch(r"[^\s/]+:([0-9]+)", address)
        _require(
            port is not None and 0 < int(port[1]) < 65_536,
            f"{name} has {address!r}; HOST:PORT, with a port from 1 to 65535",
        )
        _require(address not in addresses[:number], f"{name} has {address!r} twice")


def _require_checkpoint(name: str) -> None:
    _require(name in CHECKPOINTS, f"checkpoint is {name!r}; one of {', '.join(CHECKPOINTS)}")


def _names(field_name: str, given: str | None, allowed: Collection[str]) -> list[str]:
    """The names in a list with commas between, in the order of those allowed.

    Raises:
        ValueError: with the first that is not allowed.
    """
    names = [name.strip() for name in given.split(",")] if given else []
    for name in names:
        _require(name in allowed, f"{field_name} has {name!r}; some of {', '.join(allowed)}")
    return [name for name in allowed if name in names]


def _require_engine(name: str) -> None:
    _require(name in ENGINES, f"engine is {name!r}; one of {', '.join(ENGINES)}")


def _require_float32_engine(name: str) -> None:
    _require(name in EXPORT_FORMATS, f"engine is {name!r}; one of {', '.join(EXPORT_FORMATS)}")


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
    "missing": Kind("drop", _UNREADABLE, "no such file, or a link to none"),
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
        source: a folder of `<class>/*` or of `train/<class>/*` with `val` and `test` beside it,
            of Tiny ImageNet or of the ILSVRC2012 archives; a `.csv` or `.jsonl` manifest;
            `tfds:NAME`; or `digits` (the scans scikit-learn carries).
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
        size_px: side of the images that are trained on; `input.size_px`, which is evaluated,
            unless given.
        first_size_px: side of the images in the first epoch; it grows evenly, in steps of 32, to
            that of all others in the last. The same throughout unless given.
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
    size_px: int | None = None
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
        for name in ("size_px", "first_size_px"):
            given = getattr(self, name)
            _require(given is None or given >= 1, f"{name} is {given}; at least 1")

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
    """One of Keras's optimizers, and how weights decay.

    Only the kernels of convolutions and dense layers decay; biases and batch normalisation do not.

    Args:
        name: `sgd`, `rmsprop` or `lamb`.
        base_lr: the learning rate's peak at a batch of `base_batch_size` images.
        base_batch_size: the peak grows in proportion to `global_batch_size` from here on; null
            leaves it at `base_lr` whatever the batch.
        momentum: share of the last step (of the mean gradient in LAMB) that is kept.
        nesterov: whether SGD's momentum looks ahead.
        rho: share of the mean squared gradient that RMSProp keeps.
        epsilon: added to what RMSProp and LAMB divide by (in RMSProp under the root).
        l2: coupled decay, as in the papers up to 2017: `l2` times the weight joins the gradient,
            after clipping, and so passes through the momentum.
        weight_decay: decoupled decay: the weight loses its product with this and the learning rate
            beside the optimizer's step; within the step that is rescaled in LAMB, as published.
        clip_norm: the norm, over all variables together, that the gradient of the whole batch is
            shortened to where it is longer; 0 leaves it.
    """

    name: str = "sgd"
    base_lr: float = 0.1
    base_batch_size: int | None = 256
    momentum: float = 0.9
    nesterov: bool = True
    rho: float = 0.9
    epsilon: float = 1e-7
    l2: float = 0.0
    weight_decay: float = 5e-5
    clip_norm: float = 0.0

    def __post_init__(self) -> None:
        _require(self.name in OPTIMIZERS, f"name is {self.name!r}; one of {OPTIMIZERS}")
        _require(self.base_lr > 0, f"base_lr is {self.base_lr}; it is above 0")
        _require(
            self.base_batch_size is None or self.base_batch_size >= 1,
            f"base_batch_size is {self.base_batch_size}; at least 1, or null",
        )
        _require(0 <= self.momentum < 1, f"momentum is {self.momentum}; it lies in [0, 1)")
        _require(0 <= self.rho < 1, f"rho is {self.rho}; it lies in [0, 1)")
        _require(self.epsilon > 0, f"epsilon is {self.epsilon}; it is above 0")
        _require(self.l2 >= 0, f"l2 is {self.l2}; at least 0")
        _require(self.weight_decay >= 0, f"weight_decay is {self.weight_decay}; at least 0")
        _require(
            not (self.l2 and self.weight_decay),
            f"l2 is {self.l2} and weight_decay {self.weight_decay}; set one of them to 0",
        )
        _require(self.clip_norm >= 0, f"clip_norm is {self.clip_norm}; at least 0")


@dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate over the steps: linear warm-up from zero to its peak, then this.

    Args:
        name: `constant`; `step` (times `factor` at each of `step_epochs`); `exponential` (times
            `factor` every `decay_epochs`, at once); `cosine` or `polynomial` (from the end of the
            warm-up to `final_share` of the peak at the last step).
        warmup_epochs: epochs over which the learning rate rises.
        step_epochs: epochs, counted from the start of the run, at whose beginning it drops.
        decay_epochs: epochs, counted from the end of the warm-up, between two drops.
        factor: what a drop leaves of it.
        power: the polynomial's; 1 falls in a straight line.
        final_share: share of the peak that is left at the end.
    """

    name: str = "cosine"
    warmup_epochs: float = 5.0
    step_epochs: tuple[float, ...] = ()
    decay_epochs: float = 1.0
    factor: float = 0.1
    power: float = 1.0
    final_share: float = 0.0

    def __post_init__(self) -> None:
        _require(self.name in SCHEDULES, f"name is {self.name!r}; one of {SCHEDULES}")
        _require(self.warmup_epochs >= 0, f"warmup_epochs is {self.warmup_epochs}; at least 0")
        _require(
            list(self.step_epochs) == sorted(set(self.step_epochs))
            and min(self.step_epochs, default=self.warmup_epochs + 1) > self.warmup_epochs,
            f"step_epochs is {list(self.step_epochs)}; rising, and after the warm-up",
        )
        _require(
            (self.name == "step") == bool(self.step_epochs),
            f"name is {self.name!r} and step_epochs {list(self.step_epochs)}; they belong together",
        )
        _require(self.decay_epochs > 0, f"decay_epochs is {self.decay_epochs}; it is above 0")
        _require(0 < self.factor <= 1, f"factor is {self.factor}; it lies in (0, 1]")
        _require(self.power > 0, f"power is {self.power}; it is above 0")
        _require(
            0 <= self.final_share <= 1, f"final_share is {self.final_share}; it lies in [0, 1]"
        )


@dataclass(frozen=True)
class FineTuningConfig:
    """What is left of the weights a run begins with.

    Layers are told apart by their names (`python -m keras_zoo show NETWORK --layers`): those that
    share the first word (`stem`, `stage1`, `inception3a`, ...) are one group, and the classifiers
    are the last.

    Args:
        freeze: beginnings of the names of layers that stay as they are, `[stem, stage1]`; their
            batch normalisation uses the statistics it came with.
        depth_factor: the learning rate of a group is this times that of the group after it.
        head_only_epochs: epochs in which nothing but the classifiers changes, except the
            statistics of batch normalisation.
    """

    freeze: tuple[str, ...] = ()
    depth_factor: float = 1.0
    head_only_epochs: float = 0.0

    def __post_init__(self) -> None:
        _require(
            0 < self.depth_factor <= 1, f"depth_factor is {self.depth_factor}; it lies in (0, 1]"
        )
        _require(
            self.head_only_epochs >= 0, f"head_only_epochs is {self.head_only_epochs}; at least 0"
        )


@dataclass(frozen=True)
class TrainConfig:
    """One training run. With --dry-run: what it would take in memory and time.

    Args:
        network: a name from `python -m keras_zoo list`.
        width: how many times as many filters its layers have as published.
        data: a folder that `pipelines.prepare` wrote.
        init: what to start from: a published set (`imagenet`), a file, as `keras_zoo.build`
            takes it, or the folder of a run; fresh unless given. The classifier stays fresh for
            other classes.
        run: the folder of this run; an existing one resumes.
        train_split: what to train on, in TFDS's notation (`train`, `train[:90%]`).
        validation_split: what to measure after every epoch.
        input: what the network sees of an image; that of the weights, or the network's own, unless
            given.
        augment: how training images are varied.
        optimizer: what turns gradients into steps.
        schedule: the learning rate over the steps.
        fine_tuning: what is left of `init`.
        epochs: passes over the training split; the learning rate's schedule is this long.
        stop_after_epochs: ends the run early, its schedule unchanged; a later run goes on.
        early_stopping_epochs: epochs without a better top-1 after which the run ends; never unless
            given.
        global_batch_size: images a step, over all devices.
        accumulation_steps: parts that each device cuts its images of a step into, for want of
            memory; there is one update a step whatever their number. Batch normalisation sees each
            part for itself.
        precision: `float32`, or what layers compute in: `bfloat16`, or `float16` with a loss that
            is scaled. Weights are float32.
        sync_batch_norm: whether batch normalisation takes its statistics over all devices, not on
            each one alone.
        ema_momentum: of the moving average of the weights, in [0, 1), which is what is evaluated
            and exported then; at most (1 + n) / (10 + n) after n updates; 0 is none.
        loss: `softmax` (cross-entropy between the classes) or `binary` (each class for itself:
            those with more than a fifth of a mixed label are present).
        label_smoothing: share of the label spread evenly over all classes, in [0, 1).
        aux_weights: a weight for the loss of each auxiliary classifier, the first one's first;
            trained without them unless given.
        dropout: rate before the classifier, in [0, 1); the network's own unless given.
        shuffle_buffer: encoded images held in memory to draw the next one from.
        decode_threads: images decoded and augmented at a time; one for each core unless given.
        data_service: `grpc://HOST:PORT` of a tf.data service that prepares the images
            (`python -m pipelines.data_service`); this process does unless given.
        seed: of the weights, the order and every augmentation.
        checkpoint_every_steps: steps between checkpoints; there is one after each epoch too.
        kept_checkpoints: newest checkpoints to keep; the one with the best top-1 is kept as well.
        weight_histograms: whether TensorBoard gets histograms of the weights after each epoch.
        on_nan: what a loss or gradient that is no number does: `stop` ends the run, `rollback`
            goes on from the last checkpoint at a tenth of the learning rate.
        on_disk_full: what a checkpoint that cannot be written does: `stop` ends the run, `go_on`
            trains on without it.
        workers: `HOST:PORT,HOST:PORT,...` of all machines that train together, the first of which
            writes the run; TF_CONFIG says it otherwise. All read the same data and run folders.
        worker_index: which of `workers` this process is, from 0.
        local_workers: processes on this machine that train together, to try several machines.
    """

    data: Path
    network: str = "resnet50"
    width: float = 1.0
    init: str | None = None
    run: Path = Path("runs/resnet50")
    train_split: str = "train"
    validation_split: str = "validation"
    input: InputSpec = field(default_factory=InputSpec)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    fine_tuning: FineTuningConfig = field(default_factory=FineTuningConfig)
    epochs: int = 90
    stop_after_epochs: int | None = None
    early_stopping_epochs: int | None = None
    global_batch_size: int = 256
    accumulation_steps: int = 1
    precision: str = "float32"
    sync_batch_norm: bool = False
    ema_momentum: float = 0.0
    loss: str = "softmax"
    label_smoothing: float = 0.1
    aux_weights: tuple[float, ...] = ()
    dropout: float | None = None
    shuffle_buffer: int = 16_384
    decode_threads: int | None = None
    data_service: str | None = None
    seed: int = 0
    checkpoint_every_steps: int = 1000
    kept_checkpoints: int = 2
    weight_histograms: bool = False
    on_nan: str = "stop"
    on_disk_full: str = "stop"
    workers: str | None = None
    worker_index: int = 0
    local_workers: int = 1

    def __post_init__(self) -> None:
        heads = card(self.network).aux_heads
        weight_sets.check_width(self.network, self.init, self.width)
        _require(
            not self.aux_weights or heads is not None,
            f"aux_weights is {list(self.aux_weights)} and {self.network} has no auxiliary "
            "classifiers; leave it out",
        )
        built = heads if self.aux_weights else card(self.network)
        smallest_px = built.min_size_px
        _require(
            self.input.size_px >= smallest_px,
            f"input.size_px is {self.input.size_px}; {self.network} "
            f"{'with auxiliary classifiers ' if self.aux_weights else ''}needs at least "
            f"{smallest_px}",
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
        for name in (
            "accumulation_steps",
            "checkpoint_every_steps",
            "kept_checkpoints",
            "local_workers",
        ):
            given = getattr(self, name)
            _require(given >= 1, f"{name} is {given}; at least 1")
        for name, allowed in (
            ("precision", PRECISIONS),
            ("on_nan", ON_NAN),
            ("on_disk_full", ON_DISK_FULL),
        ):
            given = getattr(self, name)
            _require(given in allowed, f"{name} is {given!r}; one of {', '.join(allowed)}")
        _require(
            self.early_stopping_epochs is None or self.early_stopping_epochs >= 1,
            f"early_stopping_epochs is {self.early_stopping_epochs}; at least 1",
        )
        _require(
            self.init is not None or not self.fine_tuning.freeze,
            f"fine_tuning.freeze is {list(self.fine_tuning.freeze)} and init is not given: weights "
            "that were never trained would stay as they are; give init",
        )
        _require(
            0 <= self.ema_momentum < 1, f"ema_momentum is {self.ema_momentum}; it lies in [0, 1)"
        )
        require_addresses("workers", self.worker_addresses)
        _require(
            0 <= self.worker_index < max(1, len(self.worker_addresses)),
            f"worker_index is {self.worker_index}; from 0, below the number of workers "
            f"({self.workers or 'none given'})",
        )
        _require(
            self.local_workers == 1 or self.workers is None,
            "local_workers starts its own workers; leave out workers",
        )
        _require(self.loss in LOSSES, f"loss is {self.loss!r}; one of {LOSSES}")
        _require(
            self.dropout is None or 0 <= self.dropout < 1,
            f"dropout is {self.dropout}; it lies in [0, 1)",
        )
        _require(
            min(self.aux_weights, default=0) >= 0,
            f"aux_weights is {list(self.aux_weights)}; each at least 0",
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
            min(self.augment.scale_jitter_px or [self.last_size_px]) >= self.last_size_px,
            f"augment.scale_jitter_px is {self.augment.scale_jitter_px}; neither is below the "
            f"{self.last_size_px} pixels to train on",
        )
        _require(
            smallest_px <= self.last_size_px,
            f"augment.size_px is {self.augment.size_px}; {self.network} needs at least "
            f"{smallest_px}",
        )
        _require(
            smallest_px <= self.size_px(0) <= self.last_size_px,
            f"augment.first_size_px is {self.augment.first_size_px}; from {smallest_px} to "
            f"{self.last_size_px}, the size of the last epoch",
        )
        for name, given in (
            ("schedule.warmup_epochs", self.schedule.warmup_epochs),
            ("schedule.step_epochs", max(self.schedule.step_epochs, default=0)),
            ("fine_tuning.head_only_epochs", self.fine_tuning.head_only_epochs),
        ):
            _require(
                given < self.epochs,
                f"{name} is {given}, not below the {self.epochs} epochs; give a smaller --{name}",
            )

    @property
    def last_epoch(self) -> int:
        """The epoch after which the run ends, from 1."""
        return self.epochs if self.stop_after_epochs is None else self.stop_after_epochs

    @property
    def worker_addresses(self) -> list[str]:
        """`HOST:PORT` of each worker, where `workers` gives them."""
        return [] if self.workers is None else self.workers.split(",")

    @property
    def last_size_px(self) -> int:
        """The side of the training images of the last epoch."""
        return self.augment.size_px or self.input.size_px

    def size_px(self, epoch: int) -> int:
        """The side of the training images of an epoch, from 0: even growth, in steps of 32."""
        first, last = self.augment.first_size_px, self.last_size_px
        if first is None or epoch >= self.epochs - 1:
            return last
        return first + (last - first) * epoch // (self.epochs - 1) // 32 * 32

    @property
    def peak_lr(self) -> float:
        """The learning rate after warm-up: `base_lr`, scaled linearly with the batch or not."""
        base = self.optimizer.base_batch_size
        return self.optimizer.base_lr * (1 if base is None else self.global_batch_size / base)


def network_defaults(network: str, weights: str | None) -> dict[str, Any]:
    """What a `TrainConfig` takes from its network and weights where nothing else is given."""
    seen = card(network).input if weights is None else weight_sets.input_spec(network, weights)
    return {"input": dataclasses.asdict(seen), "run": f"runs/{network}"}


@dataclass(frozen=True)
class CompareConfig:
    """Several networks trained, evaluated, exported and timed alike, and a page about them.

    All of them get one budget: the same images, as often, with the same recipe.

    Args:
        data: a folder that `pipelines.prepare` wrote.
        networks: their names, with commas between.
        out: the folder of it all: runs, SavedModels, the report. What is there is not done again.
        train: what the runs have in common, the recipe `comparison` unless told otherwise; each
            has its own `network` and `run`, and images of the size it needs, where that is more.
    """

    data: Path
    networks: str
    train: TrainConfig
    out: Path = Path("comparison")

    links: ClassVar = {"data": "train.data"}
    recipe_field: ClassVar = "train"
    default_recipe: ClassVar = "comparison"

    def __post_init__(self) -> None:
        for network in self.names:
            self.of(network)

    @property
    def names(self) -> list[str]:
        """The networks, each once."""
        return list(dict.fromkeys(name.strip() for name in self.networks.split(",")))

    def of(self, network: str) -> TrainConfig:
        """The run of one network."""
        size_px = max(self.train.input.size_px, card(network).min_size_px)
        return dataclasses.replace(
            self.train,
            network=network,
            run=self.out / "runs" / network,
            input=dataclasses.replace(self.train.input, size_px=size_px),
        )


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
    recipe_field: ClassVar = "train"

    def __post_init__(self) -> None:
        _require(self.out.suffix == ".html", f"out is {str(self.out)!r}; it ends in .html")
        _require(self.sample >= 1, f"sample is {self.sample}; at least 1")
        _require(self.grid_images >= 1, f"grid_images is {self.grid_images}; at least 1")


@dataclass(frozen=True)
class InputBenchmarkConfig(TrainConfig):
    """What limits the stream of images of a training run: takes what `pipelines.train` takes.

    Args:
        out: the folder of `input.csv`, which rows are added to.
    """

    out: Path = Path("results")

    each_field: ClassVar = "network"


@dataclass(frozen=True)
class BenchmarkConfig:
    """What is common to the benchmarks of a network with fresh weights.

    Args:
        network: a name from `python -m keras_zoo list`.
        width: how many times as many filters its layers have as published.
        size_px: side of the images; the network's own unless given.
        channels: `RGB`, `BGR` or `L` (grey); the network's own unless given.
        num_classes: width of the classifier; the network's own unless given.
        seconds: how long is measured in all; starting six processes, one after the other, and
            warming up takes a minute or two besides.
        out: the folder of `train.csv`, `infer.csv` and `serve.csv`, which a row is added to.
    """

    network: str
    width: float = 1.0
    size_px: int | None = None
    channels: str | None = None
    num_classes: int | None = None
    seconds: float = 10.0
    out: Path = Path("results")

    each_field: ClassVar = "network"
    # What not every benchmark lets choose.
    batch_size: ClassVar = 1
    precision: ClassVar = "float32"
    engine: ClassVar = None
    clients: ClassVar = None

    def __post_init__(self) -> None:
        weight_sets.check_width(self.network, None, self.width)
        smallest_px = card(self.network).min_size_px
        _require(
            self.input.size_px >= smallest_px,
            f"size_px is {self.size_px}; {self.network} needs at least {smallest_px}",
        )
        _require(self.classes >= 2, f"num_classes is {self.num_classes}; at least 2")
        _require(0 < self.seconds < math.inf, f"seconds is {self.seconds}; above 0, and finite")

    @property
    def input(self) -> InputSpec:
        """What the network sees of an image."""
        own = card(self.network).input
        if self.channels not in (None, own.channels):
            values = (127.5,) * CHANNELS.get(self.channels, 3)
            own = InputSpec(own.size_px, channels=self.channels, mean=values, std=values)
        return own if self.size_px is None else replace(own, size_px=self.size_px)

    @property
    def classes(self) -> int:
        return card(self.network).num_classes if self.num_classes is None else self.num_classes


@dataclass(frozen=True)
class TrainBenchmarkConfig(BenchmarkConfig):
    """How fast networks train: the step of `pipelines.train` on a batch that is in memory.

    Args:
        batch_size: images a step, over all devices.
        precision: `float32`, or what layers compute in: `bfloat16` or `float16`.
    """

    batch_size: int = 16
    precision: str = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.batch_size >= 1, f"batch_size is {self.batch_size}; at least 1")
        _require(
            self.precision in PRECISIONS,
            f"precision is {self.precision!r}; one of {', '.join(PRECISIONS)}",
        )


@dataclass(frozen=True)
class InferBenchmarkConfig(BenchmarkConfig):
    """How fast exported networks answer: from pixels to probabilities, a call after the other.

    Args:
        batch_size: images a call.
        engine: what computes the network: `savedmodel`, `onnx`, `litert` or `openvino`.
    """

    batch_size: int = 1
    engine: str = "savedmodel"

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.batch_size >= 1, f"batch_size is {self.batch_size}; at least 1")
        _require_float32_engine(self.engine)


@dataclass(frozen=True)
class ServeBenchmarkConfig(BenchmarkConfig):
    """How fast `pipelines.serve` answers clients that send a photograph after the other.

    Args:
        engine: what computes the network: `savedmodel`, `onnx`, `litert` or `openvino`.
        clients: that send at a time; each waits for its answer.
    """

    engine: str = "savedmodel"
    clients: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_float32_engine(self.engine)
        _require(self.clients >= 1, f"clients is {self.clients}; at least 1")


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
    """How well a network does over every image of a split, each counted once.

    Args:
        model: a folder that `pipelines.train` or `pipelines.export` wrote (a model's, or one of its
            versions'); or NETWORK@WEIGHTS, these being `imagenet`, another published set or a file.
        data: a prepared data set with the same classes; what the model was trained with unless
            given.
        split: what to measure, in TFDS's notation; the run's validation split, or else
            `validation`, unless given.
        checkpoint: of a run: `newest`, or `best`: of the epoch with the best top-1.
        engine: of an exported model, the format that answers: `savedmodel`, `onnx`, `litert` or
            `openvino`, or one of these compressed: `openvino-int8`.
        views: what is seen of each image; there is a result for each of them, the probabilities
            of a view's parts being averaged. `centre`: the central crop; `flip`: and its mirror
            image; `ten_crops`: the corners and the centre of the central square of
            `input.resize_px`, and their mirror images, as AlexNet was measured; `multi_scale`: the
            centre with as much, an eighth and a quarter more around it, and their mirror images.
        sizes_px: sides of the images, with a result for each; of a run or a network that takes
            others than its own, which is taken unless given.
        real_labels: ImageNet-ReaL's `real.json`, to measure top-1 against as well; for ILSVRC2012's
            validation images under the names they were published with.
        out: a folder to write: the figures, every prediction, tables and charts.
        batch_size: images at a time; the result does not depend on it.
    """

    model: str
    data: Path | None = None
    split: str | None = None
    checkpoint: str = "newest"
    engine: str = "savedmodel"
    views: tuple[str, ...] = ("centre",)
    sizes_px: tuple[int, ...] = ()
    real_labels: Path | None = None
    out: Path | None = None
    batch_size: int = 64

    def __post_init__(self) -> None:
        _require_checkpoint(self.checkpoint)
        _require_engine(self.engine)
        _require(len(self.views) > 0, f"views is empty; some of {', '.join(VIEWS)}")
        for name in self.views:
            _require(name in VIEWS, f"views has {name!r}; {', '.join(VIEWS)} are allowed")
        for size_px in self.sizes_px:
            _require(size_px >= 1, f"sizes_px has {size_px}; at least 1")
        _require(self.batch_size >= 1, f"batch_size is {self.batch_size}; at least 1")


@dataclass(frozen=True)
class PredictConfig:
    """The most probable classes of images.

    Args:
        model: a run, an exported model or NETWORK@WEIGHTS, as `pipelines.evaluate` takes it.
        images: image files, folders of them, and `-` for a file from standard input.
        checkpoint: of a run: `newest`, or `best`: of the epoch with the best top-1.
        engine: of an exported model, the format that answers: `savedmodel`, `onnx`, `litert` or
            `openvino`, or one of these compressed: `openvino-int8`.
        top_k: classes of each image to tell.
        explain: a folder for a picture of each image, as the network saw it, under a heat map of
            what spoke for its first answer (Grad-CAM).
    """

    model: str
    images: list[str]
    checkpoint: str = "newest"
    engine: str = "savedmodel"
    top_k: int = 5
    explain: Path | None = None

    rest_field: ClassVar = "images"

    def __post_init__(self) -> None:
        _require_checkpoint(self.checkpoint)
        _require_engine(self.engine)
        _require(self.top_k >= 1, f"top_k is {self.top_k}; at least 1")


@dataclass(frozen=True)
class ExportConfig:
    """From a trained network to a SavedModel that takes image files and answers with labels.

    Args:
        source: the folder of a run, or the name of a network whose weights `init` names.
        out: the model's folder; its versions are 1, 2, ...
        init: weights of a network: a published set (`imagenet`) or a file, as `keras_zoo.build`
            takes it; a run has its own.
        labels: a file with the name of each class of a network, one a line; ImageNet's synsets
            unless given. A run knows its own.
        data: a prepared data set; its images are what the exported model is verified with. The
            run's own unless given; for a network, two photographs unless given or quantized.
        checkpoint: of a run: `newest`, or `best`: of the epoch with the best top-1.
        top_k: labels in an answer.
        format: `savedmodel`, which is always written, and further formats of the network alone:
            `onnx`, `litert`, `openvino`, with commas between. They need the extra `formats`.
        quantize: how each of these is compressed besides: `int8`, weights and activations, whose
            ranges training images give; `dynamic`, weights; `float16`, weights at half the bits.
            One that surely costs more than 0.01 of top-1 is refused.
        images: images of the validation split that each format is verified with, at most.
    """

    source: Path
    out: Path
    init: str | None = None
    labels: Path | None = None
    data: Path | None = None
    checkpoint: str = "newest"
    top_k: int = 5
    format: str = "savedmodel"
    quantize: str | None = None
    images: int = 256

    def __post_init__(self) -> None:
        _require_checkpoint(self.checkpoint)
        _require(self.top_k >= 1, f"top_k is {self.top_k}; at least 1")
        _require(self.images >= 1, f"images is {self.images}; at least 1")
        chosen = _names("format", self.format, EXPORT_FORMATS)
        for compression in _names("quantize", self.quantize, COMPRESSIONS):
            able = COMPRESSIONS[compression]
            _require(
                not set(able).isdisjoint(chosen),
                f"quantize has {compression!r} and format is {self.format!r}; there is "
                f"{compression} in {', '.join(able)}: add one to --format",
            )

    @property
    def formats(self) -> list[str]:
        """The formats beside the SavedModel, each before its compressed ones: `onnx-int8`."""
        compressions = _names("quantize", self.quantize, COMPRESSIONS)
        return [
            name
            for chosen in _names("format", self.format, EXPORT_FORMATS)
            if chosen != "savedmodel"
            for name in (
                chosen,
                *(f"{chosen}-{how}" for how in compressions if chosen in COMPRESSIONS[how]),
            )
        ]


@dataclass(frozen=True)
class ReportConfig:
    """Runs side by side: one page that needs nothing else, and its tables as CSV and Markdown.

    Args:
        runs: folders that `pipelines.train` wrote; unfinished ones too.
        out: the folder to write; a report that is there is replaced.
        results: where `pipelines.benchmark` wrote `infer.csv`.
    """

    runs: list[Path]
    out: Path = Path("report")
    results: Path = Path("results")

    rest_field: ClassVar = "runs"

    def __post_init__(self) -> None:
        _require(len(self.runs) > 0, "runs is empty; give the folders of some runs")
        for number, run in enumerate(self.runs):
            _require(run not in self.runs[:number], f"runs has {str(run)!r} twice")


@dataclass(frozen=True)
class ServeConfig:
    """An HTTP server over exported models.

    Speaks TensorFlow Serving's REST API, the Open Inference Protocol, and plain uploads.

    Args:
        models: the folder of models: `<models>/<name>/<version>/`.
        host: the address to listen on.
        port: the port to listen on; 8501 is TensorFlow Serving's.
        engine: what computes the network: `savedmodel`, `onnx`, `litert` or `openvino`, or one of
            these compressed, as `openvino-int8`; as far as the export wrote and verified it.
        versions: how many versions of each model are served, the newest that load; those that
            `<models>/<name>/version_labels.yaml` names are too.
        poll_s: how often the folder is looked at for new versions.
        max_batch: images in one call of the network.
        batch_delay_ms: how long the first image of a batch waits for others.
        max_in_flight: images in the server at a time, decoding included; more are refused (429).
            Under load an image takes about this many divided by the images a second.
        max_instances: images in one request.
        max_body_mib: size of a request's body.
        max_bodies_mib: size of the bodies of all requests at a time, as far as they have come; more
            are refused (429).
        max_image_mpx: width times height of an image, in megapixels, before it is decoded.
        read_timeout_s: how long a request's head, and then its body, may take to arrive.
        deadline_s: how long a request may take in all, before it is given up (504).
    """

    models: Path = Path("saved_models")
    host: str = "127.0.0.1"
    port: int = 8501
    engine: str = "savedmodel"
    versions: int = 1
    poll_s: float = 2.0
    max_batch: int = 8
    batch_delay_ms: float = 2.0
    max_in_flight: int = 64
    max_instances: int = 32
    max_body_mib: int = 32
    max_bodies_mib: int = 512
    max_image_mpx: int = 50
    read_timeout_s: float = 10.0
    deadline_s: float = 30.0

    def __post_init__(self) -> None:
        _require(0 <= self.port < 65_536, f"port is {self.port}; from 0 (any free one) to 65535")
        _require_engine(self.engine)
        for name in ("versions", "max_batch", "max_instances", "max_body_mib", "max_image_mpx"):
            value = getattr(self, name)
            _require(value >= 1, f"{name} is {value}; at least 1")
        for name in ("poll_s", "read_timeout_s", "deadline_s"):
            value = getattr(self, name)
            _require(0 < value < math.inf, f"{name} is {value}; above 0, and finite")
        _require(
            0 <= self.batch_delay_ms < math.inf,
            f"batch_delay_ms is {self.batch_delay_ms}; at least 0, and finite",
        )
        _require(
            self.max_bodies_mib >= self.max_body_mib,
            f"max_bodies_mib is {self.max_bodies_mib}; at least max_body_mib, {self.max_body_mib}",
        )
        _require(
            self.max_in_flight >= self.max_instances,
            f"max_in_flight is {self.max_in_flight}; at least max_instances, {self.max_instances}",
        )


@dataclass(frozen=True)
class WorkflowConfig:
    """The whole way: prepare, train, evaluate, export. `compare --help`: several networks.

    Args:
        prepare: the data.
        train: the run; its data is what prepare writes.
        export: the SavedModel; its source is the run that train writes.
    """

    prepare: PrepareConfig
    train: TrainConfig
    export: ExportConfig

    links: ClassVar = {"prepare.out": "train.data", "train.run": "export.source"}
