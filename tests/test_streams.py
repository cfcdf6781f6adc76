"""What training and evaluation iterate over."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from keras_zoo import InputSpec
from pipelines.data.streams import evaluation_stream, num_images, open_dataset, training_stream
from pipelines.errors import BadInput
from tests.conftest import digits_config, numbered_config

SPEC = InputSpec(32, crop_fraction=1.0, channels="L", mean=(127.5,), std=(127.5,))


def batches(config, first_epoch, count):
    stream = training_stream(open_dataset(config.data), config, first_epoch=first_epoch)
    return [(images.numpy(), labels.numpy()) for images, labels in stream.take(count)]


def numbers(images):
    """Which of the numbered images these are."""
    return images[:, 0, 0, 0].astype(int) + 256 * images[:, 0, 0, 1].astype(int)


def epoch_numbers(config, **place):
    """Image numbers of a training stream, a row a step."""
    stream = training_stream(open_dataset(config.data), config, **place)
    return np.stack([numbers(images) for images, _ in stream.as_numpy_iterator()])


def digest(config, steps=6):
    """A hash of the first batches, pixels and labels."""
    stream = training_stream(open_dataset(config.data), config, first_epoch=0)
    sha = hashlib.sha256()
    for images, labels in stream.take(steps).as_numpy_iterator():
        sha.update(images.tobytes() + labels.tobytes())
    return sha.hexdigest()


ALL_AUGMENTATIONS = (
    "--augment.crop_area=[0.2, 1.0]",
    "--augment.horizontal_flip=true",
    "--augment.policy=randaugment",
    "--augment.erasing_probability=0.5",
    "--augment.mixup_alpha=0.2",
    "--augment.cutmix_alpha=1",
)


@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
@pytest.mark.parametrize("n", [1, 7, 255, 256, 257])
def test_evaluation_yields_every_image_once(numbered, n, batch_size, num_workers):
    """Over all workers together, in the order on disk, each worker as many batches."""
    dataset, spec = open_dataset(numbered), InputSpec(16, crop_fraction=1.0)
    seen, labels_seen, counts = [], [], set()
    for worker in range(num_workers):
        stream = evaluation_stream(
            dataset,
            f"validation[:{n}]",
            spec,
            batch_size,
            worker=worker,
            num_workers=num_workers,
        )
        batches_of_worker = list(stream.as_numpy_iterator())
        counts.add(len(batches_of_worker))
        for images, labels, mask in batches_of_worker:
            assert images.shape == (batch_size, 16, 16, 3)
            seen += list(numbers(images[mask]))
            labels_seen += list(labels[mask])
    assert seen == list(range(n))
    assert labels_seen == [number % 10 for number in range(n)]
    assert len(counts) == 1


def test_the_same_epoch_is_bit_identical_with_any_threads_and_in_another_process(numbered):
    one, two, eight = (
        digest(numbered_config(numbered, *ALL_AUGMENTATIONS, f"--decode_threads={threads}"))
        for threads in (1, 2, 8)
    )
    assert one == two == eight
    script = (
        "import sys; from pathlib import Path\n"
        "from tests.test_streams import ALL_AUGMENTATIONS, digest, numbered_config\n"
        "print(digest(numbered_config(Path(sys.argv[1]), *ALL_AUGMENTATIONS)))"
    )
    done = subprocess.run([sys.executable, "-c", script, numbered], capture_output=True, text=True)
    assert done.stdout.strip() == one, done.stderr


def test_an_epoch_holds_each_image_once_and_the_next_one_another_order(numbered):
    epochs = epoch_numbers(numbered_config(numbered), first_epoch=0).reshape(3, -1)
    for epoch in epochs:
        assert len(set(epoch)) == len(epoch) == 256
    assert (epochs[0] != epochs[1]).mean() > 0.9
    # Neighbours on disk are not neighbours in the stream.
    assert (np.diff(epochs[0]) == 1).mean() < 0.1


def test_a_stream_that_begins_at_a_step_equals_the_whole_one_from_there(numbered):
    config, dataset = numbered_config(numbered, *ALL_AUGMENTATIONS), open_dataset(numbered)
    whole = list(training_stream(dataset, config, first_epoch=0).as_numpy_iterator())
    assert len(whole) == 48
    for epoch, step in ((0, 5), (1, 15), (2, 0)):
        begun = training_stream(dataset, config, first_epoch=epoch, first_step=step)
        rest = whole[16 * epoch + step :]
        for (images, labels), (begun_images, begun_labels) in zip(
            rest, begun.as_numpy_iterator(), strict=True
        ):
            assert (images == begun_images).all()
            assert (labels == begun_labels).all()


@pytest.mark.parametrize("num_workers", [2, 4])
def test_workers_share_an_epoch_without_overlap(numbered, num_workers):
    config = numbered_config(numbered)
    shares = [
        epoch_numbers(config, first_epoch=0, worker=worker, num_workers=num_workers)
        for worker in range(num_workers)
    ]
    assert {share.shape for share in shares} == {(48, 16 // num_workers)}
    first_epoch = np.concatenate([share[:16].ravel() for share in shares])
    assert len(set(first_epoch)) == 256


def test_resolution_grows_over_the_epochs(numbered):
    config = numbered_config(
        numbered, "--input.size_px", "128", "--augment.first_size_px", "64", "--epochs", "3"
    )
    stream = training_stream(open_dataset(numbered), config, first_epoch=0)
    sizes = [images.shape[1:3] for images, _ in stream.as_numpy_iterator()]
    assert sizes == 16 * [(64, 64)] + 16 * [(96, 96)] + 16 * [(128, 128)]


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


def test_scale_jitter_cuts_at_the_size_that_is_trained_on(digits, tmp_path):
    """Which is smaller here than the one that is evaluated, 32 pixels, and so is the image."""
    jitter = ["--augment.size_px", "16", "--augment.scale_jitter_px", "[16, 20]"]
    config = digits_config(digits, tmp_path, *jitter)
    images, _ = next(iter(training_stream(open_dataset(digits), config, first_epoch=0)))
    assert images.shape[1:] == (16, 16, 1)
