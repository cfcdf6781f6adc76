"""What training and evaluation iterate over."""

import numpy as np
import pytest
import tensorflow as tf

from keras_zoo import InputSpec
from pipelines.data.streams import evaluation_stream, num_images, open_dataset, training_stream
from pipelines.errors import BadInput
from tests.conftest import digits_config

SPEC = InputSpec(32, crop_fraction=1.0, channels="L", mean=(127.5,), std=(127.5,))


def batches(config, first_epoch, count):
    stream = training_stream(open_dataset(config.data), config, first_epoch=first_epoch)
    return [(images.numpy(), labels.numpy()) for images, labels in stream.take(count)]


@pytest.mark.parametrize("batch_size", [1, 3, 64])
@pytest.mark.parametrize("n", [1, 7, 63, 64, 65])
def test_evaluation_yields_every_image_once(digits, n, batch_size):
    dataset = open_dataset(digits)
    whole = evaluation_stream(dataset, "validation", SPEC, 356)
    ((images, labels, _),) = whole.as_numpy_iterator()
    seen, seen_labels = [], []
    for batch, batch_labels, mask in evaluation_stream(
        dataset, f"validation[:{n}]", SPEC, batch_size
    ).as_numpy_iterator():
        assert batch.shape == (batch_size, 32, 32, 1)
        seen.append(batch[mask])
        seen_labels.append(batch_labels[mask])
    assert (np.concatenate(seen) == images[:n]).all()
    assert (np.concatenate(seen_labels) == labels[:n]).all()


def test_batches_are_uint8_images_and_one_hot_labels(digits, tmp_path):
    ((images, labels),) = batches(digits_config(digits, tmp_path), 0, 1)
    assert (images.shape, images.dtype) == ((32, 32, 32, 1), np.uint8)
    assert (labels.shape, labels.dtype) == ((32, 10), np.float32)
    assert (labels.sum(axis=1) == 1).all()


def test_an_epoch_is_the_same_again_and_the_next_one_differs(digits, tmp_path):
    config = digits_config(digits, tmp_path)
    steps = num_images(open_dataset(digits), "train") // 32
    two_epochs, second_alone = batches(config, 0, 2 * steps), batches(config, 1, steps)
    first, second = two_epochs[:steps], two_epochs[steps:]
    for (ours, _), (again, _) in zip(second, second_alone, strict=True):
        assert (ours == again).all()
    assert not any((a == b).all() for (a, _), (b, _) in zip(first, second, strict=True))


def test_another_seed_gives_another_order(digits, tmp_path):
    ((one, _),) = batches(digits_config(digits, tmp_path), 0, 1)
    ((other, _),) = batches(digits_config(digits, tmp_path, "--seed", "1"), 0, 1)
    assert not (one == other).all()


def test_the_stream_ends_after_the_last_epoch(digits, tmp_path):
    config = digits_config(digits, tmp_path)
    steps = num_images(open_dataset(digits), "train") // 32
    assert len(batches(config, config.epochs - 1, 10 * steps)) == steps


def test_an_image_is_augmented_afresh_every_epoch(digits, tmp_path):
    """One image a split: whatever the order, only the crop can differ."""
    config = digits_config(
        digits, tmp_path, "--train_split", "train[:1]", "--global_batch_size", "1"
    )
    crops = {image.tobytes() for image, _ in batches(config, 0, 8)}
    assert len(crops) == 8


def test_a_missing_split_is_named(digits):
    with pytest.raises(BadInput, match=r"no split 'test'.*\['train', 'validation'\]"):
        num_images(open_dataset(digits), "test")


def test_a_folder_without_data_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"no prepared data set in .*pipelines.prepare"):
        open_dataset(tmp_path)


def test_no_draw_depends_on_the_global_seed(digits, tmp_path):
    tf.random.set_seed(1)
    ((one, _),) = batches(digits_config(digits, tmp_path), 0, 1)
    tf.random.set_seed(2)
    ((other, _),) = batches(digits_config(digits, tmp_path), 0, 1)
    assert (one == other).all()
