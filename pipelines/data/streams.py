"""The assembled tf.data streams: what training and evaluation iterate over."""

from pathlib import Path

import tensorflow as tf
import tensorflow_datasets as tfds

from keras_zoo import InputSpec
from pipelines.config import TrainConfig
from pipelines.data.images import evaluation_image, training_image
from pipelines.errors import BadInput


def open_dataset(folder: Path) -> tfds.core.DatasetBuilder:
    """The prepared data set in a folder.

    Raises:
        BadInput: the folder is missing, or is not a TFDS data set of images and labels.
    """
    if not (folder / "dataset_info.json").is_file():
        raise BadInput(
            f"no prepared data set in {str(folder)!r}; "
            f"python -m pipelines.prepare SOURCE --out {folder} writes one"
        )
    builder = tfds.builder_from_directory(folder)
    if not {"image", "label"} <= set(builder.info.features):
        raise BadInput(
            f"{str(folder)!r} has the features {sorted(builder.info.features)}; "
            "image and label needed"
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
    dataset: tfds.core.DatasetBuilder, config: TrainConfig, *, first_epoch: int
) -> tf.data.Dataset:
    """Shuffled, augmented batches: uint8 `(B, S, S, C)` and float32 one-hot `(B, num_classes)`.

    Runs from `first_epoch` to the last one; an epoch drops the images that do not fill a batch,
    other ones each time. Order and augmentation are functions of (seed, epoch, index of the
    image in the data set): an epoch is the same in a resumed run, and differs from the next.
    """
    images = _encoded(dataset, config.train_split)
    num_classes = len(class_names(dataset))

    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        epoch_seed = tf.stack([tf.constant(config.seed, tf.int64), epoch])

        def augmented(index: tf.Tensor, encoded: tf.Tensor, label: tf.Tensor):
            seed = tf.random.fold_in(epoch_seed, index)
            pixels = training_image(encoded, config.input, config.augment, seed)
            return pixels, tf.one_hot(label, num_classes)

        # Of this function's graph alone: the order is not to depend on the process's global seed.
        tf.random.set_seed(1)
        order_seed = tf.random.stateless_uniform(
            (), epoch_seed, minval=None, maxval=None, dtype=tf.int64
        )
        return (
            images.shuffle(config.shuffle_buffer, order_seed, reshuffle_each_iteration=False)
            .map(augmented, num_parallel_calls=tf.data.AUTOTUNE)
            .batch(config.global_batch_size, drop_remainder=True)
        )

    epochs = tf.data.Dataset.range(first_epoch, config.epochs)
    return epochs.flat_map(one_epoch).prefetch(tf.data.AUTOTUNE)


def evaluation_stream(
    dataset: tfds.core.DatasetBuilder, split: str, spec: InputSpec, batch_size: int
) -> tf.data.Dataset:
    """Every image of a split once: uint8 `(B, S, S, C)`, int64 labels `(B,)`, bool mask `(B,)`.

    The last batch is filled up to `batch_size` with blank images whose mask is False.
    """

    def central(_: tf.Tensor, encoded: tf.Tensor, label: tf.Tensor):
        return evaluation_image(encoded, spec), label, True

    def blank():
        return tf.zeros(spec.shape, tf.uint8), tf.zeros((), tf.int64), False

    padding = -num_images(dataset, split) % batch_size
    blanks = tf.data.Dataset.range(padding).map(lambda _: blank())
    return (
        _encoded(dataset, split)
        .map(central, num_parallel_calls=tf.data.AUTOTUNE)
        .concatenate(blanks)
        .batch(batch_size, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def encoded_images(dataset: tfds.core.DatasetBuilder, split: str) -> tf.data.Dataset:
    """The encoded bytes of every image of a split, in the order of `evaluation_stream`."""
    return _encoded(dataset, split).map(lambda index, encoded, label: encoded)


def _encoded(dataset: tfds.core.DatasetBuilder, split: str) -> tf.data.Dataset:
    """`(index, encoded bytes, label)` of every image, in the order of the files on disk."""
    examples = dataset.as_dataset(
        split, decoders={"image": tfds.decode.SkipDecoding()}, shuffle_files=False
    )
    return examples.enumerate().map(lambda index, e: (index, e["image"], e["label"]))
