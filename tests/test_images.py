"""Pixels, against Pillow and against formulas."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_zoo import InputSpec
from pipelines.config import AugmentConfig
from pipelines.data.images import decode, evaluation_image, training_image


@pytest.fixture(scope="module")
def scene():
    """A smooth colour scene, 90 by 130, as a photograph is: structure at every scale."""
    y, x = np.mgrid[0:90, 0:130].astype(np.float64)
    waves = [np.sin(x / 9 + y / 14), np.cos(x / 23 - y / 5), np.sin(x * y / 900)]
    return np.uint8(np.rint(127.5 + 120 * np.stack(waves, axis=-1)))


def encode(array, image_format, **options):
    file = io.BytesIO()
    Image.fromarray(array).save(file, image_format, **options)
    return file.getvalue()


def psnr(a, b):
    error = np.mean((np.float64(a) - np.float64(b)) ** 2)
    return np.inf if error == 0 else 10 * np.log10(255**2 / error)


@pytest.mark.parametrize("image_format", ["PNG", "BMP"])
def test_lossless_formats_decode_to_the_pixels_that_went_in(scene, image_format):
    assert (decode(encode(scene, image_format), channels=3).numpy() == scene).all()


def test_jpeg_decodes_as_pillow_decodes_it(scene):
    encoded = encode(scene, "JPEG", quality=90)
    theirs = np.asarray(Image.open(io.BytesIO(encoded)))
    assert np.abs(decode(encoded, channels=3).numpy().astype(int) - theirs).max() <= 1


def test_gif_gives_its_first_frame(scene):
    frames = [Image.fromarray(scene).quantize(), Image.new("P", (130, 90))]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    theirs = np.asarray(Image.open(io.BytesIO(file.getvalue())).convert("RGB"))
    assert (decode(file.getvalue(), channels=3).numpy() == theirs).all()


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "BMP", "GIF"])
def test_grey_files_become_colour_and_colour_files_grey(scene, image_format):
    grey = decode(encode(scene[..., 0], image_format), channels=3).numpy()
    assert grey.shape == (90, 130, 3)
    assert (grey[..., :1] == grey).all()
    assert decode(encode(scene, image_format), channels=1).shape == (90, 130, 1)


def test_alpha_is_dropped_as_pillow_drops_it(scene):
    alpha = np.full((*scene.shape[:2], 1), 128, np.uint8)
    rgba = encode(np.concatenate([scene, alpha], axis=-1), "PNG")
    assert (decode(rgba, channels=3).numpy() == scene).all()
    grey_alpha = io.BytesIO()
    Image.fromarray(scene).convert("LA").save(grey_alpha, "PNG")
    assert decode(grey_alpha.getvalue(), channels=3).shape == (90, 130, 3)


@pytest.mark.parametrize("encoded", [b"", b"hello", b"\xff\xd8\xff\xe0 torn"])
def test_what_is_no_image_is_refused(encoded):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(tf.constant(encoded), channels=3)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size_px", [32, 64, 112])
def test_evaluation_sees_what_pillow_resizes_and_crops(scene, size_px, interpolation):
    spec = InputSpec(size_px=size_px, interpolation=interpolation)
    ours = evaluation_image(encode(scene, "PNG"), spec).numpy()
    # torchvision's Resize and CenterCrop, step by step.
    short = round(size_px / 0.875)
    long = int(short * 130 / 90)
    method = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    resized = Image.fromarray(scene).resize((long, short), method[interpolation])
    top, left = round((short - size_px) / 2), round((long - size_px) / 2)
    theirs = np.asarray(resized.crop((left, top, left + size_px, top + size_px)))
    assert ours.shape == theirs.shape
    assert ours.dtype == np.uint8
    assert psnr(ours, theirs) > 40


def test_a_sliver_is_seen_without_resizing_all_of_it():
    """One pixel by 5,000: resized whole, to 256 by 1,280,000 pixels, it would take 4 GB."""
    sliver = np.tile(np.arange(5000, dtype=np.uint8)[None, :, None], (1, 1, 3))
    seen = evaluation_image(encode(sliver, "PNG"), InputSpec()).numpy()
    assert np.ptp(seen) <= 1
    assert abs(int(seen[0, 0, 0]) - 2500 % 256) <= 1


def test_cmyk_files_are_decoded_in_grey_and_colour(scene):
    file = io.BytesIO()
    Image.fromarray(scene).convert("CMYK").save(file, "JPEG", quality=95)
    for channels in (1, 3):
        assert decode(file.getvalue(), channels=channels).shape == (90, 130, channels)


def test_evaluation_of_an_image_of_the_right_size_changes_nothing(scene):
    square = scene[:64, :64]
    spec = InputSpec(size_px=64, crop_fraction=1.0)
    assert (evaluation_image(encode(square, "PNG"), spec).numpy() == square).all()


@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
def test_the_same_seed_gives_the_same_training_pixels(scene, image_format):
    encoded, spec, augment = encode(scene, image_format), InputSpec(size_px=32), AugmentConfig()

    def pixels(seed):
        return training_image(encoded, spec, augment, tf.constant([3, seed])).numpy()

    assert pixels(5).shape == (32, 32, 3)
    assert (pixels(5) == pixels(5)).all()
    assert len({pixels(seed).tobytes() for seed in range(8)}) == 8


def test_training_on_the_whole_image_without_flip_is_a_resize(scene):
    augment = AugmentConfig(
        crop_area=(1.0, 1.0), crop_aspect=(130 / 90, 130 / 90), horizontal_flip=False
    )
    ours = training_image(encode(scene, "PNG"), InputSpec(size_px=48), augment, tf.constant([0, 1]))
    theirs = Image.fromarray(scene).resize((48, 48), Image.Resampling.BILINEAR)
    assert psnr(ours.numpy(), np.asarray(theirs)) > 40


def test_crops_stay_in_their_stated_range_and_half_are_mirrored():
    """The image is its own coordinates: each crop tells where it was cut."""
    side = 200
    y, x = np.mgrid[0:side, 0:side].astype(np.uint8)
    encoded = encode(np.stack([y, x, y], axis=-1), "PNG")
    augment = AugmentConfig(crop_area=(0.2, 0.5), crop_aspect=(0.8, 1.25))
    spec = InputSpec(size_px=50)

    @tf.function
    def pixels(index):
        return training_image(encoded, spec, augment, tf.stack([0, index]))

    areas, aspects, mirrored = [], [], 0
    for index in range(200):
        crop = pixels(tf.constant(index)).numpy().astype(float)
        height = (crop[-1, 0, 0] - crop[0, 0, 0]) * 50 / 49
        width = (crop[0, -1, 1] - crop[0, 0, 1]) * 50 / 49
        mirrored += width < 0
        areas.append(height * abs(width) / side**2)
        aspects.append(abs(width) / height)
    assert 0.19 < min(areas) < 0.23
    assert 0.47 < max(areas) < 0.51
    assert 0.78 < min(aspects) < 0.84
    assert 1.19 < max(aspects) < 1.28
    # 200 fair coins: five standard deviations.
    assert abs(mirrored - 100) < 36
