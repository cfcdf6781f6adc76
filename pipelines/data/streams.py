"""The assembled tf.data streams: what training and evaluation iterate over.

Every random draw is a function of (seed, epoch, index of the image in the split), or of (seed,
step) where a whole batch shares it. So an epoch is the same bit for bit in another process and
with any number of threads, the next one differs, and a stream can begin at any step. Between two
versions of TensorFlow, or two kinds of processor, pixels may differ by one.
"""

import dataclasses
import os
import socket
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf
import tensorflow_datasets as tfds

from keras_zoo import InputSpec
from pipelines.config import TrainConfig
from pipelines.data.augment import augment_image, mix
from pipelines.data.images import VIEWS, hush_transposing, training_image
from pipelines.data.parallel import available_cores
from pipelines.errors import BadInput

# Files read at a time, a record from each in turn.
OPEN_FILES = 8
# What the tf.data service hands to a worker at a time: no more records of one file than this.
PIECE_RECORDS = 1024
# A service that runs answers within this time.
ANSWER_S = 10


class Files(NamedTuple):
    """Which records of which files a split, or a worker's share of it, is made of.

    Args:
        name: string `(F,)`, the TFRecord files.
        skip: int64 `(F,)`, records of each file that come before the first one.
        take: int64 `(F,)`, records of each file.
        first: int64 `(F,)`, the index in the split of the first record of each file.
    """

    name: tf.Tensor
    skip: tf.Tensor
    take: tf.Tensor
    first: tf.Tensor


def open_dataset(folder: Path) -> tfds.core.DatasetBuilder:
    """The prepared data set in a folder.

    Raises:
        BadInput: the folder is missing, or is not a TFDS data set of images and labels.
    """
    if not (folder / "dataset_info.json").is_file():
        raise BadInput(
            f"no prepared data set in {str(folder)!r}; "
            "python -m pipelines.prepare SOURCE --out DATA writes one"
        )
    hush_transposing()
    builder = tfds.builder_from_directory(folder)
    if not {"image", "label"} <= set(builder.info.features):
        raise BadInput(
            f"{str(folder)!r} has the features {sorted(builder.info.features)}; "
            "image and label needed"
        )
    if builder.info.file_format != tfds.core.FileFormat.TFRECORD:
        raise BadInput(
            f"{str(folder)!r} is stored as {builder.info.file_format.value}; "
            "python -m pipelines.prepare writes tfrecord, which streams read"
        )
    return builder


def num_images(dataset: tfds.core.DatasetBuilder, split: str) -> int:
    """Images in a split, given in TFDS's notation.

    Raises:
        BadInput: the data set has no such split, or it is empty.
    """
    try:
        count = dataset.info.splits[split].num_examples
    except (KeyError, ValueError) as error:
        raise BadInput(
            f"no split {split!r} in {dataset.data_dir}; it has {sorted(dataset.info.splits)}"
        ) from error
    if count <= 0:
        raise BadInput(f"split {split!r} of {dataset.data_dir} is empty")
    return count


def class_names(dataset: tfds.core.DatasetBuilder) -> list[str]:
    """The labels, in the order of their numbers."""
    return dataset.info.features["label"].names


def training_stream(
    dataset: tfds.core.DatasetBuilder,
    config: TrainConfig,
    *,
    first_epoch: int,
    first_step: int = 0,
    worker: int = 0,
    num_workers: int = 1,
) -> tf.data.Dataset:
    """Shuffled, augmented batches: uint8 `(B, S, S, C)` and float32 labels `(B, num_classes)`.

    Runs to the last epoch; an epoch drops the images that do not fill a batch, other ones each
    time. Labels are one-hot, or shared between two classes where images are mixed.

    A stream that begins at a step equals the whole one from that step on: the images before it
    are read, and not decoded. Behind the tf.data service (`config.data_service`) the images and
    their augmentation are the same, each once an epoch, and their order is not; there, a stream
    that begins inside an epoch begins that epoch's images anew.

    Args:
        dataset: the prepared data.
        config: what to train on, and how.
        first_epoch: the epoch to begin with, from 0.
        first_step: steps of the first epoch to leave out.
        worker: which of the workers this stream is for, from 0.
        num_workers: each gets its own equal share of an epoch, in batches of
            `global_batch_size / num_workers`.
    """
    batch_size = config.global_batch_size // num_workers
    steps = num_images(dataset, config.train_split) // config.global_batch_size
    begun = first_epoch * steps + first_step
    images = _served_images if config.data_service else _local_images
    stream = images(dataset, config, begun, batch_size, steps, worker, num_workers).batch(
        batch_size, drop_remainder=True
    )
    if config.augment.mixes:
        batch_seed = tf.random.fold_in(tf.constant([config.seed, worker], tf.int64), 0)

        def mixed(step: tf.Tensor, batch: tuple[tf.Tensor, tf.Tensor]):
            return mix(*batch, config.augment, tf.random.fold_in(batch_seed, step))

        stream = stream.enumerate(begun).map(mixed, num_parallel_calls=_threads(config))
    return stream.prefetch(tf.data.AUTOTUNE).with_options(_options(_threads(config)))


def _local_images(
    dataset: tfds.core.DatasetBuilder,
    config: TrainConfig,
    begun: int,
    batch_size: int,
    steps: int,
    worker: int,
    num_workers: int,
) -> tf.data.Dataset:
    """Augmented images of one worker from the step `begun` on, in their reproducible order."""
    files = _files(dataset, config.train_split)
    share = _share_of(num_images(dataset, config.train_split), worker, num_workers)
    per_epoch = steps * batch_size
    first_epoch, first_step = divmod(begun, steps)

    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        skipped = tf.where(epoch == first_epoch, first_step * batch_size, 0)
        shuffled = _shuffled(files, config, epoch, share)
        return shuffled.take(per_epoch).skip(tf.cast(skipped, tf.int64))

    def augmented(position: tf.Tensor, numbered: tuple[tf.Tensor, tf.Tensor]):
        return _augmented(dataset, config, position // per_epoch, *numbered)

    # One map over all epochs: its threads do not wait for one epoch to end.
    return (
        tf.data.Dataset.range(first_epoch, config.epochs)
        .flat_map(one_epoch)
        .enumerate(begun * batch_size)
        .map(augmented, num_parallel_calls=_threads(config))
    )


def _served_images(
    dataset: tfds.core.DatasetBuilder,
    config: TrainConfig,
    begun: int,
    batch_size: int,
    steps: int,
    worker: int,
    num_workers: int,
) -> tf.data.Dataset:
    """Augmented images of one trainer from the tf.data service, in no particular order.

    All epochs are one sequence of pieces, each handed to one worker of the service. Every image
    comes once an epoch; where one epoch follows another, they overlap by what the workers hold.
    A worker that dies takes the pieces it had begun with it; the others go on, and an epoch more
    than are trained on fills the gap.

    Raises:
        BadInput: there is no service.
    """
    _require_service(config.data_service)
    share = _share_of(num_images(dataset, config.train_split), worker, num_workers)
    pieces = _pieces(_part(_files(dataset, config.train_split), *share))
    per_epoch = len(pieces.name)

    def one_piece(number: tf.Tensor) -> tf.data.Dataset:
        epoch = number // per_epoch
        order, record_seed = _orders(config, epoch, per_epoch)
        row = order[number % per_epoch]
        records = _records(Files(*(column[row] for column in pieces)))
        # Of one piece, not of several: an image does not wait while an epoch goes by.
        return _shuffle(records, PIECE_RECORDS, record_seed).map(
            lambda index, record: (epoch, index, record)
        )

    return (
        tf.data.Dataset.range(begun // steps * per_epoch, (config.epochs + 1) * per_epoch)
        .flat_map(one_piece)
        .map(
            lambda epoch, index, record: _augmented(dataset, config, epoch, index, record),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        .apply(
            tf.data.experimental.service.distribute(
                tf.data.experimental.service.ShardingPolicy.DYNAMIC, config.data_service
            )
        )
        .take((config.epochs * steps - begun) * batch_size)
    )


def _require_service(address: str) -> None:
    host, _, port = address.removeprefix("grpc://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), ANSWER_S).close()
    except (OSError, ValueError) as error:
        raise BadInput(
            f"nobody answers at data_service {address} ({error}); "
            "python -m pipelines.data_service starts one"
        ) from error


def _orders(config: TrainConfig, epoch: tf.Tensor, num_files: int) -> tuple[tf.Tensor, tf.Tensor]:
    """An epoch's order of the files, int32 `(F,)`, and the seed of its records' order, int64."""
    epoch_seed = tf.stack([tf.constant(config.seed, tf.int64), epoch])
    file_seed, record_seed = tf.unstack(tf.random.split(epoch_seed, 2))
    order = tf.argsort(tf.random.stateless_uniform((num_files,), file_seed))
    return order, tf.random.stateless_uniform((), record_seed, None, None, tf.int64)


def _shuffled(
    files: Files, config: TrainConfig, epoch: tf.Tensor, share: tuple[int, int]
) -> tf.data.Dataset:
    """`(index, record)` of a worker's share of an epoch: files shuffled, then their records."""
    order, record_seed = _orders(config, epoch, len(files.name))
    records = tf.data.Dataset.from_tensor_slices(
        _part(Files(*(tf.gather(column, order) for column in files)), *share)
    ).interleave(_records, cycle_length=OPEN_FILES, num_parallel_calls=tf.data.AUTOTUNE)
    return _shuffle(records, config.shuffle_buffer, record_seed)


def _shuffle(records: tf.data.Dataset, buffer: int, seed: tf.Tensor) -> tf.data.Dataset:
    """In an order that depends on the seed alone; inside a function of tf.data's."""
    # Of this function's graph: a global seed of the process would change the order, or be refused.
    tf.random.set_seed(1)
    return records.shuffle(buffer, seed, reshuffle_each_iteration=False)


# Nothing below needs AutoGraph, which takes most of the time until the first batch.
@tf.autograph.experimental.do_not_convert
def _augmented(
    dataset: tfds.core.DatasetBuilder,
    config: TrainConfig,
    epoch: tf.Tensor,
    index: tf.Tensor,
    record: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """A record -> uint8 `(S, S, C)` and its one-hot label; a function of seed, epoch, index."""
    encoded, label = _parsed(dataset, record)
    seed = tf.random.fold_in(tf.stack([tf.constant(config.seed, tf.int64), epoch]), index)
    crop_seed, colour_seed = tf.unstack(tf.random.split(seed, 2))
    spec = dataclasses.replace(config.input, size_px=config.last_size_px)
    size_px = _size_px(config, epoch)
    pixels = training_image(encoded, spec, config.augment, crop_seed, size_px)
    pixels = augment_image(pixels, config.augment, colour_seed)
    return pixels, tf.one_hot(label, len(class_names(dataset)))


def _size_px(config: TrainConfig, epoch: tf.Tensor) -> tf.Tensor | int:
    """The side of an epoch's images: one number, or one for each epoch."""
    sizes = [config.size_px(number) for number in range(config.epochs + 1)]
    return sizes[-1] if len(set(sizes)) == 1 else tf.gather(sizes, epoch)


def evaluation_stream(
    dataset: tfds.core.DatasetBuilder,
    split: str,
    spec: InputSpec,
    batch_size: int,
    views: str = "centre",
    *,
    worker: int = 0,
    num_workers: int = 1,
) -> tf.data.Dataset:
    """Every image of a split once: uint8 `(B, S, S, C)`, int64 labels `(B,)`, bool mask `(B,)`.

    Where `views` are several of each image, they are `(B, V, S, S, C)`.
    In the order of the files on disk. The last batch is filled up to `batch_size` with blank
    images whose mask is False. Each of several workers gets its own part of the images, and all
    of them equally many batches.
    """
    total = num_images(dataset, split)
    begin, end = _share_of(total, worker, num_workers)
    padding = _round_up(-(-total // num_workers), batch_size) - (end - begin)
    files = _part(_files(dataset, split), begin, end)

    def seen(_: tf.Tensor, record: tf.Tensor):
        encoded, label = _parsed(dataset, record)
        return VIEWS[views](encoded, spec), label, True

    threads = available_cores()
    records = tf.data.Dataset.from_tensor_slices(files).flat_map(_records)
    images = records.map(seen, num_parallel_calls=threads)
    blank = [tf.zeros(part.shape, part.dtype) for part in images.element_spec]
    return (
        images.concatenate(tf.data.Dataset.from_tensors(tuple(blank)).repeat(padding))
        .batch(batch_size, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
        .with_options(_options(threads))
    )


def encoded_images(dataset: tfds.core.DatasetBuilder, split: str) -> tf.data.Dataset:
    """The encoded bytes of every image of a split, in the order of `evaluation_stream`."""
    files = tf.data.Dataset.from_tensor_slices(_files(dataset, split))
    return files.flat_map(_records).map(lambda _, record: _parsed(dataset, record)[0])


def names_and_labels(dataset: tfds.core.DatasetBuilder, split: str) -> tuple[list[str], list[int]]:
    """What preparation called every image of a split, and its class, as `evaluation_stream` goes.

    The images of a data set that does not tell are called `<split>:0`, `<split>:1`, ...
    """
    files = tf.data.Dataset.from_tensor_slices(_files(dataset, split))
    skipped = {"image": tfds.decode.SkipDecoding()}

    def named(index: tf.Tensor, record: tf.Tensor):
        example = dataset.info.features.deserialize_example(record, decoders=skipped)
        number = tf.strings.join([split, tf.strings.as_string(index)], ":")
        return example.get("file_name", number), example["label"]

    rows = list(files.flat_map(_records).map(named).as_numpy_iterator())
    return [name.decode() for name, _ in rows], [int(label) for _, label in rows]


def _threads(config: TrainConfig) -> int:
    return config.decode_threads or available_cores()


def _options(threads: int) -> tf.data.Options:
    """Threads of the stream's own, one to an op: images are what runs in parallel."""
    options = tf.data.Options()
    options.deterministic = True
    options.threading.private_threadpool_size = threads
    options.threading.max_intra_op_parallelism = 1
    # The workers' shares are made above.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return options


def _files(dataset: tfds.core.DatasetBuilder, split: str) -> Files:
    """The files of a split, in their order on disk."""
    parts = dataset.info.splits[split].file_instructions
    take = tf.constant([part.take for part in parts], tf.int64)
    return Files(
        tf.constant([os.fspath(part.filename) for part in parts]),
        tf.constant([part.skip for part in parts], tf.int64),
        take,
        tf.cumsum(take, exclusive=True),
    )


def _part(files: Files, begin: int, end: int) -> Files:
    """Of the records of all files, one after another, those from `begin` to `end`."""
    before = tf.cumsum(files.take, exclusive=True)
    low = tf.clip_by_value(begin - before, 0, files.take)
    take = tf.clip_by_value(end - before, 0, files.take) - low
    part = Files(files.name, files.skip + low, take, files.first + low)
    return Files(*(tf.boolean_mask(column, take > 0) for column in part))


def _pieces(files: Files) -> Files:
    """The same records as more rows, none of more than `PIECE_RECORDS` records."""
    total = int(tf.reduce_sum(files.take))
    begins = range(0, total, PIECE_RECORDS)
    parts = [_part(files, begin, begin + PIECE_RECORDS) for begin in begins]
    return Files(*(tf.concat(columns, axis=0) for columns in zip(*parts, strict=True)))


def _share_of(total: int, worker: int, num_workers: int) -> tuple[int, int]:
    """Where a worker's part of `total` records begins and ends; parts differ by one at most."""
    return worker * total // num_workers, (worker + 1) * total // num_workers


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _records(file: Files) -> tf.data.Dataset:
    """`(index in the split, serialized example)` of one row."""
    return tf.data.TFRecordDataset(file.name).skip(file.skip).take(file.take).enumerate(file.first)


def _parsed(dataset: tfds.core.DatasetBuilder, record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """A serialized example -> the image's encoded bytes and its label, int64."""
    example = dataset.info.features.deserialize_example(
        record, decoders={"image": tfds.decode.SkipDecoding()}
    )
    return example["image"], example["label"]
