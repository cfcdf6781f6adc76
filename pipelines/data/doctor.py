"""The input doctor: how fast each stage of the training stream is, and which one holds it back.

Every stage runs alone, over and over, with the stream's own threads and with what comes before it
held in memory:

- `read`: records from their files (several at a time) to encoded bytes and labels. Files that the
  operating system has cached are read from memory, as in a second epoch;
- `decode`: `training_image`, from encoded bytes to the crop at the network's size, mirrored or not.
  The decoder gives the crop and nothing else, so that decoding and cropping are one stage;
- `resize`: what of `decode` is resizing, on crops of the sizes that the decoder gives;
- `augment`: what changes the pixels of one image;
- `batch`: images to a batch, mixed where mixup or CutMix are on;
- `copy`: a batch to the device. On a CPU nothing is copied, and this is the call alone.

Beside them stand the whole stream, its ceiling (one ready batch, handed out again and again) and
the network's appetite: forward and backward passes over that batch, without an optimizer. A rate
is the median of several short passes, in images a second. Where the images grow over the epochs,
they are measured at the size of the last one.

The stages share the cores, so that the times they take for an image add up to the whole stream's;
on a CPU the network has a share of them too, and both at once are slower than each alone.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from resource import getpagesize
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from rich.console import Console

from pipelines.config import InputBenchmarkConfig, TrainConfig
from pipelines.data.augment import augment_image, mix
from pipelines.data.images import (
    RATIOS,
    decode,
    inception_window,
    resize,
    scale_jitter_window,
    training_image,
)
from pipelines.data.inspection import measure
from pipelines.data.parallel import available_cores
from pipelines.data.streams import (
    OPEN_FILES,
    class_names,
    num_images,
    open_dataset,
    training_stream,
)
from pipelines.errors import BadInput
from pipelines.training.model import image_classifier

STAGES = {
    "read": "read",
    "decode": "decode, crop and resize",
    "resize": "  of it, resize",
    "augment": "augment",
    "batch": "batch",
    "copy": "copy to the device",
}
LABELS = STAGES | {
    "stream": "whole stream",
    "ceiling": "ceiling: one ready batch",
    "model": "network, forward and backward",
}
PASSES = 5
PASS_S = 0.3
# Held in memory, in each form, for the stages to work on.
SAMPLE_IMAGES = 256
# Images that a stage of single images handles between two looks at the clock.
CHUNK_IMAGES = 32
# The network takes as many images of a batch as it gets through in this time, a few at least.
STEP_S = 2.0
FEWEST_IMAGES = 8
# No measurement needs more of them.
EPOCHS = 10_000


class Stage(NamedTuple):
    """An endless stream, each element of which stands for so many images."""

    stream: tf.data.Dataset
    images: int


class WholeStream(NamedTuple):
    """The training stream, measured.

    Args:
        batch: its first: uint8 `(B, S, S, C)` and float32 labels `(B, num_classes)`.
        options: its own.
        images_per_s: from the second batch on.
        first_batch_s: from its assembly to the first batch.
        resident_mib: what the process's memory grew by until then.
    """

    batch: tuple[tf.Tensor, tf.Tensor]
    options: tf.data.Options
    images_per_s: float
    first_batch_s: float
    resident_mib: float


@dataclass(frozen=True)
class InputReport:
    """What `diagnose` measured.

    Args:
        data: as given.
        network: as given.
        cores: that this process may use.
        decode_threads: images decoded and augmented at a time.
        images_per_s: of each stage alone, the whole stream, its ceiling and the network.
        device: where the network ran.
        devices: like it, all of which train.
        step_images: images a step of the network on one of them.
        first_batch_s: from the stream's assembly to its first batch.
        resident_mib: what the process's memory grew by until then.
        shuffle_images: images in the shuffle buffer once it is full.
        shuffle_mib: encoded bytes of as many images, the first on disk.
        bottleneck: what limits training, and the setting to change.
    """

    data: str
    network: str
    cores: int
    decode_threads: int
    images_per_s: dict[str, float]
    device: str
    devices: int
    step_images: int
    first_batch_s: float
    resident_mib: float
    shuffle_images: int
    shuffle_mib: float
    bottleneck: str

    def __str__(self) -> str:
        rows = (f"{LABELS[name]:32}{_told(rate):>12}" for name, rate in self.images_per_s.items())
        return "\n".join(
            [
                f"{self.data}: {self.decode_threads} threads on {self.cores} cores",
                f"{'':32}{'images/s':>12}",
                *rows,
                f"{self.network} ran on {self.device} (of {self.devices}), {self.step_images} "
                "images a step",
                f"first batch after {self.first_batch_s:.1f} s, in which the process grew by "
                f"{self.resident_mib:,.0f} MiB",
                f"shuffle buffer: {self.shuffle_images:,} images, {self.shuffle_mib:,.1f} MiB "
                "of encoded bytes",
                self.bottleneck,
            ]
        )


def diagnose(config: InputBenchmarkConfig) -> InputReport:
    """Measures the stream that this config trains on, and the network that it feeds.

    Raises:
        BadInput: no such data or split, or a batch that the split cannot fill.
    """
    dataset = open_dataset(config.data)
    total = num_images(dataset, config.train_split)
    batch_size = config.global_batch_size
    if batch_size > total:
        raise BadInput(
            f"global_batch_size is {batch_size}, more than the {total} images of "
            f"{config.train_split!r}; give a smaller one"
        )
    # As in the last epoch, over and over.
    steady = dataclasses.replace(
        config,
        input=dataclasses.replace(config.input, size_px=config.last_size_px),
        augment=dataclasses.replace(config.augment, size_px=None, first_size_px=None),
        epochs=EPOCHS,
        stop_after_epochs=None,
    )
    devices = _devices()
    with Console(stderr=True).status("measuring the whole stream") as status:
        whole = whole_stream(dataset, steady)
        held = measure(dataset, config.train_split, min(config.shuffle_buffer, total))
        rates = {}
        for name, stage in stages(dataset, steady, whole.options).items():
            status.update(f"measuring {STAGES[name].strip()}")
            rates[name] = _stage_rate(stage)
        rates["copy"] = _copy_rate(whole.batch, devices[0].name)
        rates["stream"] = whole.images_per_s
        rates["ceiling"] = _stage_rate(Stage(_ready(whole.batch), batch_size))
        status.update(f"measuring {config.network}")
        rates["model"], step_images = appetite(steady, whole.batch, len(devices))
    return InputReport(
        data=str(config.data),
        network=config.network,
        cores=available_cores(),
        decode_threads=whole.options.threading.private_threadpool_size,
        images_per_s=rates,
        device=devices[0].name,
        devices=len(devices),
        step_images=step_images,
        first_batch_s=whole.first_batch_s,
        resident_mib=whole.resident_mib,
        shuffle_images=len(held.kib),
        shuffle_mib=float(held.kib.sum() / 1024),
        bottleneck=bottleneck(rates, config, int(np.median(held.short_side_px))),
    )


def whole_stream(dataset: tfds.core.DatasetBuilder, config: TrainConfig) -> WholeStream:
    """Opens the training stream and runs it for a while."""
    began_s = time.perf_counter()
    stream = training_stream(dataset, config, first_epoch=0)
    before_mib = _resident_mib()
    iterator = iter(stream)
    batch = next(iterator)
    first_batch_s, resident_mib = time.perf_counter() - began_s, _resident_mib() - before_mib
    rate = _rate(lambda: next(iterator), config.global_batch_size)
    return WholeStream(batch, stream.options(), rate, first_batch_s, resident_mib)


def stages(
    dataset: tfds.core.DatasetBuilder, config: TrainConfig, options: tf.data.Options
) -> dict[str, Stage]:
    """Each stage alone, from reading to batching, on what the one before it made of a sample.

    Args:
        dataset: the prepared data.
        config: of the stream that is taken apart.
        options: of that stream; they say how many threads there are.
    """
    spec, augment, batch_size = config.input, config.augment, config.global_batch_size
    threads, classes = options.threading.private_threadpool_size, len(class_names(dataset))

    def seed(index: tf.Tensor) -> tf.Tensor:
        return tf.random.fold_in(tf.constant([config.seed, 0], tf.int64), index)

    def decoded(index: tf.Tensor, example: dict[str, tf.Tensor]) -> tf.Tensor:
        return training_image(example["image"], spec, augment, seed(index))

    def cropped(index: tf.Tensor, example: dict[str, tf.Tensor]) -> tf.Tensor:
        return _crop(decode(example["image"], channels=spec.num_channels), config, seed(index))

    def resized(_: tf.Tensor, crop: tf.Tensor) -> tf.Tensor:
        return resize(crop, spec.size_px, spec)

    def augmented(index: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
        return augment_image(image, augment, seed(index))

    def labelled(index: tf.Tensor, example: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        image = augmented(index, decoded(index, example))
        return image, tf.one_hot(example["label"], classes)

    def mixed(step: tf.Tensor, batch: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        return mix(*batch, augment, seed(step)) if augment.mixes else batch

    def made(function: Callable) -> tf.data.Dataset:
        """The sample in the form that a function gives it, in memory after its first pass."""
        return sample.enumerate().map(function, num_parallel_calls=threads).cache().repeat()

    def stage(held: tf.data.Dataset, function: Callable) -> Stage:
        """Only a pixel of each image leaves, so that nothing but the function takes time."""
        stream = held.enumerate().map(
            lambda index, given: function(index, given)[0, 0, 0], num_parallel_calls=threads
        )
        return Stage(stream.batch(CHUNK_IMAGES).with_options(options), CHUNK_IMAGES)

    read = dataset.as_dataset(
        config.train_split,
        decoders={"image": tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(
            interleave_cycle_length=OPEN_FILES, try_autocache=False, skip_prefetch=True
        ),
    )
    sample = read.take(SAMPLE_IMAGES)
    lengths = read.repeat().map(lambda example: tf.strings.length(example["image"]))
    batches = made(labelled).batch(batch_size, drop_remainder=True).enumerate()
    return {
        "read": Stage(lengths.batch(CHUNK_IMAGES).with_options(options), CHUNK_IMAGES),
        "decode": stage(sample.cache().repeat(), decoded),
        "resize": stage(made(cropped), resized),
        "augment": stage(made(decoded), augmented),
        "batch": Stage(
            batches.map(mixed, num_parallel_calls=threads).with_options(options), batch_size
        ),
    }


def _crop(image: tf.Tensor, config: TrainConfig, seed: tf.Tensor) -> tf.Tensor:
    """A random crop of a whole image, of the size that the decoder would give it."""
    size_px, augment, full = config.input.size_px, config.augment, tf.shape(image)[:2]
    window = (
        scale_jitter_window(full, size_px, augment.scale_jitter_px, seed)
        if augment.scale_jitter_px
        else inception_window(full, augment.crop_area, augment.crop_aspect, seed)
    )
    crop = tf.image.crop_to_bounding_box(image, *tf.unstack(window))
    fitting = tf.cast(tf.reduce_min(window[2:]) // size_px >= RATIOS[1:], tf.int32)
    ratio = tf.gather(RATIOS, tf.reduce_sum(fitting))
    return tf.ensure_shape(crop[::ratio, ::ratio], (None, None, config.input.num_channels))


def appetite(
    config: TrainConfig, batch: tuple[tf.Tensor, tf.Tensor], devices: int
) -> tuple[float, int]:
    """Images a second that the network takes on all devices, and images of a measured step.

    One device is measured, with its share of the batch or as many of those images as it gets
    through in `STEP_S`.

    Args:
        config: the network, and what it sees.
        batch: uint8 `(B, S, S, C)` and float32 labels `(B, num_classes)`.
        devices: that share a batch.
    """
    images, labels = batch
    model = image_classifier(config.network, config.input, labels.shape[-1], width=config.width)

    # Any number of images: one trace for the trial and the measurement.
    @tf.function(
        input_signature=[
            tf.TensorSpec((None, *images.shape[1:]), images.dtype),
            tf.TensorSpec((None, *labels.shape[1:]), labels.dtype),
        ]
    )
    def step(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            loss = keras.losses.categorical_crossentropy(labels, logits, from_logits=True)
        # The norm is cheap, and every gradient is in it.
        return tf.linalg.global_norm(tape.gradient(loss, model.trainable_variables))

    def taken(count: int) -> Callable[[], np.ndarray]:
        return lambda: step(images[:count], labels[:count]).numpy()

    share = max(1, len(images) // devices)
    few = min(FEWEST_IMAGES, share)
    taken(few)()
    began_s = time.perf_counter()
    taken(few)()
    trial_s = time.perf_counter() - began_s
    count = min(share, max(few, int(few * STEP_S / trial_s)))
    return devices * _rate(taken(count), count), count


def bottleneck(rates: dict[str, float], config: TrainConfig, short_side_px: int) -> str:
    """One line: what limits training, and the setting to change.

    Args:
        rates: images a second by the names in `LABELS`; the ceiling is not looked at.
        config: the run's.
        short_side_px: of the median image on disk.
    """
    stream, model = _told(rates["stream"]), _told(rates["model"])
    if rates["stream"] >= rates["model"]:
        return (
            f"{config.network} is the bottleneck: it takes {model} images/s of the stream's "
            f"{stream}: another device, another --network or a smaller --input.size_px"
        )
    if config.data_service:
        return (
            f"the data service is the bottleneck: {stream} images/s against the model's {model}: "
            f"more workers, python -m pipelines.data_service --join {config.data_service}"
        )
    slowest = min(STAGES, key=rates.get)
    settings = ", or ".join(_settings(config, short_side_px)[slowest])
    return (
        f"{slowest} is the bottleneck: {_told(rates[slowest])} images/s alone and {stream} in the "
        f"whole stream against the model's {model}: {settings}"
    )


def _settings(config: TrainConfig, short_side_px: int) -> dict[str, list[str]]:
    """What makes each stage faster, the cheapest first; only what is not so already."""
    size_px, augment, cores = config.input.size_px, config.augment, available_cores()
    enough_px = size_px * 10 // 7
    smaller = [f"prepare with --short_side_px {enough_px}"] if short_side_px > enough_px else []
    threads = [f"--decode_threads {cores}"] if (config.decode_threads or cores) < cores else []
    one_op = (
        ["--augment.policy trivial_augment_wide"]
        if augment.policy in ("randaugment", "autoaugment")
        else []
    )
    unmixed = ["--augment.mixup_alpha 0 --augment.cutmix_alpha 0"] if augment.mixes else []
    elsewhere = ["--data_service grpc://HOST:PORT"]
    fewer_pixels = [f"an --input.size_px below {size_px}"]
    return {
        "read": [*smaller, "a copy of the data set on a faster disk"],
        "decode": [*threads, *smaller, *elsewhere],
        "resize": [*threads, *elsewhere],
        "augment": [*threads, *one_op, *elsewhere],
        "batch": [*unmixed, *fewer_pixels],
        "copy": fewer_pixels,
    }


def _copy_rate(batch: tuple[tf.Tensor, tf.Tensor], device: str) -> float:
    iterator = iter(_ready(batch))

    def copied() -> None:
        images, _ = next(iterator)
        with tf.device(device):
            # Reading a pixel back waits for the copy.
            tf.identity(images)[0, 0, 0, 0].numpy()

    return _rate(copied, len(batch[0]))


def _ready(batch: tuple[tf.Tensor, tf.Tensor]) -> tf.data.Dataset:
    """A stream that has nothing to do."""
    return tf.data.Dataset.from_tensors(batch).repeat().prefetch(tf.data.AUTOTUNE)


def _stage_rate(stage: Stage) -> float:
    iterator = iter(stage.stream)
    # What the stage works on is in memory after one pass over the sample.
    for _ in range(-(-SAMPLE_IMAGES // stage.images)):
        next(iterator)
    return _rate(lambda: next(iterator), stage.images)


def _rate(take: Callable[[], object], images: int) -> float:
    """Images a second of a call that handles so many; the first one is not counted."""
    take()
    rates = []
    for _ in range(PASSES):
        began_s, calls = time.perf_counter(), 0
        while (passed_s := time.perf_counter() - began_s) < PASS_S:
            take()
            calls += 1
        rates.append(calls * images / passed_s)
    return statistics.median(rates)


def _devices() -> list[tf.config.LogicalDevice]:
    """What trains: the GPUs, or else the CPU."""
    return tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")


def _resident_mib() -> float:
    """Memory of this process that is in RAM."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * getpagesize() / 2**20


def _told(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"
