"""Pixels, against Pillow and against formulas."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_zoo import InputSpec
from pipelines.config import AugmentConfig
from pipelines.data.images import (
    central_square,
    decode,
    evaluation_image,
    flip,
    inception_window,
    multi_scale,
    resize,
    scale_jitter_window,
    ten_crops,
    training_image,
)


def waves(height, width):
    """A smooth colour scene, as a photograph is: structure at every scale."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    waves = [np.sin(x / 9 + y / 14), np.cos(x / 23 - y / 5), np.sin(x * y / 900)]
    return np.uint8(np.rint(127.5 + 120 * np.stack(waves, axis=-1)))


@pytest.fixture(scope="module")
def scene():
    return waves(90, 130)


def photograph(side):
    """Noise with a photograph's spectrum: its amplitude falls with frequency."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side))) + 0.3 / side
    noise = np.random.default_rng(0).normal(size=(3, side, side))
    scene = np.real(np.fft.ifft2(np.fft.fft2(noise) / frequency**1.6))
    scene = np.clip(127.5 + 45 * scene / scene.std(), 0, 255)
    return scene.astype(np.uint8).transpose(1, 2, 0)


def pillow_evaluation(image, spec):
    """torchvision's Resize and CenterCrop, step by step."""
    short, (width, height) = spec.resize_px, image.size
    size = short * width // min(image.size), short * height // min(image.size)
    method = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    resized = image.resize(size, method[spec.interpolation])
    left, top = (round((side - spec.size_px) / 2) for side in size)
    return np.asarray(resized.crop((left, top, left + spec.size_px, top + spec.size_px)))


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


def test_flip_is_the_centre_and_its_mirror_image(scene):
    spec, encoded = InputSpec(20), tf.constant(encode(scene, "PNG"))
    centre = evaluation_image(encoded, spec).numpy()
    np.testing.assert_array_equal(flip(encoded, spec), [centre, centre[:, ::-1]])


def test_multi_scale_is_three_central_crops_of_as_many_sizes_and_their_mirrors(scene):
    encoded = tf.constant(encode(scene, "PNG"))
    expected = [
        pillow_evaluation(Image.fromarray(scene), InputSpec(21, crop_fraction=kept)).astype(int)
        for kept in (1.0, 0.875, 0.75)
    ]
    expected += [view[:, ::-1] for view in expected]
    views = multi_scale(encoded, InputSpec(21)).numpy().astype(int)
    assert views.shape == (6, 21, 21, 3)
    assert np.abs(views - np.stack(expected)).max() <= 2


@pytest.mark.parametrize("encoded", [b"", b"hello", b"\xff\xd8\xff\xe0 torn"])
def test_what_is_no_image_is_refused(encoded):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(tf.constant(encoded), channels=3)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size_px", [32, 64, 112])
def test_evaluation_sees_what_pillow_resizes_and_crops(scene, size_px, interpolation):
    spec = InputSpec(size_px=size_px, interpolation=interpolation)
    ours = evaluation_image(encode(scene, "PNG"), spec).numpy()
    theirs = pillow_evaluation(Image.fromarray(scene), spec)
    assert ours.shape == theirs.shape
    assert ours.dtype == np.uint8
    assert psnr(ours, theirs) > 40


def test_without_a_filter_a_jpeg_gives_the_pixels_that_the_decoded_image_gives():
    spec = InputSpec(32, antialias=False)
    encoded = encode(photograph(900), "JPEG", quality=95)
    whole = central_square(decode(encoded, channels=3), spec)
    assert psnr(evaluation_image(encoded, spec).numpy(), whole.numpy()) > 50


def test_a_sliver_is_seen_without_resizing_all_of_it():
    """One pixel by 500,000: resized whole, to 256 by 128,000,000 pixels, it would take 98 GB."""
    sliver = np.tile(np.arange(500_000).astype(np.uint8)[None, :, None], (1, 1, 3))
    seen = evaluation_image(encode(sliver, "PNG"), InputSpec()).numpy()
    assert np.ptp(seen) <= 1
    assert abs(int(seen[0, 0, 0]) - 250_000 % 256) <= 1


def test_a_sliver_whose_resized_length_is_beyond_32_bits_is_seen():
    """Nine million pixels, 2,304,000,000 when the short side has 256; dark left, bright right."""
    sliver = np.zeros((1, 9_000_000, 3), np.uint8)
    sliver[:, :3_000_000] = 50
    sliver[:, 3_000_000:6_000_000] = 130
    sliver[:, 6_000_000:] = 200
    seen = central_square(tf.constant(sliver), InputSpec()).numpy()
    assert set(seen.ravel()) == {130}


def test_cmyk_files_are_decoded_in_grey_and_colour(scene):
    file = io.BytesIO()
    Image.fromarray(scene).convert("CMYK").save(file, "JPEG", quality=95)
    for channels in (1, 3):
        assert decode(file.getvalue(), channels=channels).shape == (90, 130, channels)


@pytest.mark.parametrize("shape", [(90, 130), (300, 200), (777, 1111), (999, 640), (64, 500)])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_evaluation_of_a_jpeg_decodes_only_what_it_shows_and_sees_the_same(shape, subsampling):
    """From images that grow to such as are decoded at an eighth of their size."""
    encoded = encode(waves(*shape), "JPEG", quality=92, subsampling=subsampling)
    decoded = Image.open(io.BytesIO(encoded)).convert("RGB")
    for spec in (InputSpec(32), InputSpec(96, crop_fraction=1.0), InputSpec(64)):
        ours = evaluation_image(encoded, spec).numpy()
        assert psnr(ours, pillow_evaluation(decoded, spec)) > 40


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


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
@pytest.mark.parametrize("side", [64, 97])
def test_training_on_the_whole_image_at_its_own_size_changes_nothing(
    side, image_format, interpolation
):
    augment = AugmentConfig(crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0), horizontal_flip=False)
    encoded = encode(photograph(side), image_format)
    spec = InputSpec(size_px=side, interpolation=interpolation)
    decoded = np.asarray(Image.open(io.BytesIO(encoded)))
    for seed in range(3):
        pixels = training_image(encoded, spec, augment, tf.constant([seed, 1])).numpy()
        assert (pixels == decoded).all()


def noise(side):
    """Black and white at random: what overshoots as much as anything can."""
    return np.uint8(255 * np.random.default_rng(1).integers(0, 2, (side, side, 3)))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("scene", [photograph, noise])
@pytest.mark.parametrize("shrink", [0.4, 0.6, 1.0, 1.1, 1.6, 2.0, 3.3])
def test_a_resized_image_is_pillows_within_a_grey_level(interpolation, scene, shrink):
    method = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    image = scene(round(112 * shrink))
    ours = resize(image, 112, InputSpec(112, interpolation=interpolation)).numpy()
    theirs = np.asarray(Image.fromarray(image).resize((112, 112), method[interpolation]))
    difference = np.abs(ours.astype(int) - theirs)
    assert difference.max() <= 1
    assert psnr(ours, theirs) > 60


def test_a_large_jpeg_shrinks_while_it_decodes():
    augment = AugmentConfig(crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0), horizontal_flip=False)
    encoded = encode(photograph(640), "JPEG", quality=95)
    decoded = Image.open(io.BytesIO(encoded))
    for size_px in (64, 100, 200, 320):
        ours = training_image(encoded, InputSpec(size_px), augment, tf.constant([0, 1])).numpy()
        theirs = decoded.resize((size_px, size_px), Image.Resampling.BILINEAR)
        assert psnr(ours, np.asarray(theirs)) > 35


def test_windows_have_the_stated_areas_and_aspects():
    @tf.function
    def draw(index):
        seed = tf.stack([1, index])
        return inception_window(tf.constant([400, 500]), (0.08, 1.0), (0.75, 1.3333), seed)

    windows = np.stack([draw(tf.constant(index)).numpy() for index in range(1500)])
    top, left, height, width = windows.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 400).all()
    assert (left + width <= 500).all()
    area, aspect = height * width / (400 * 500), width / height
    assert 0.075 < area.min() < 0.1
    assert area.max() > 0.9
    assert aspect.min() > 0.74
    assert aspect.max() < 1.35
    # Where nearly every draw fits, both are uniform: within five standard deviations.
    areas, _ = np.histogram(area, bins=7, range=(0.08, 0.72))
    assert np.ptp(areas) < 10 * np.sqrt(areas.mean())
    aspects, _ = np.histogram(np.log(aspect[area < 0.6]), bins=6)
    assert np.ptp(aspects) < 10 * np.sqrt(aspects.mean())


def test_an_image_that_no_draw_fits_into_gives_its_largest_central_crop():
    window = inception_window(tf.constant([20, 1000]), (0.5, 1.0), (0.75, 1.3333), [1, 2]).numpy()
    assert tuple(window) == (0, 487, 20, 26)


def test_scale_jitter_cuts_a_square_of_the_resized_image():
    @tf.function
    def draw(index):
        return scale_jitter_window(tf.constant([375, 500]), 224, (256, 512), tf.stack([1, index]))

    top, left, height, width = np.stack([draw(tf.constant(i)).numpy() for i in range(1000)]).T
    assert (height == width).all()
    short = 224 * 375 / height
    assert 256 <= short.min() < 260
    assert 500 < short.max() < 517
    assert (top + height <= 375).all()
    assert (left + width <= 500).all()
    assert left.min() == 0
    quarters, _ = np.histogram(short, bins=4, range=(256, 513))
    assert quarters.min() > 190


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


def test_ten_crops_are_the_corners_and_the_centre_of_the_central_square_and_their_mirrors(scene):
    spec = InputSpec(20, crop_fraction=0.625)
    encoded = encode(scene, "PNG")
    whole = pillow_evaluation(Image.fromarray(scene), InputSpec(32, crop_fraction=1.0)).astype(int)
    corners = [(0, 0), (0, 12), (12, 0), (12, 12), (6, 6)]
    expected = [whole[top : top + 20, left : left + 20] for top, left in corners]
    expected += [crop[:, ::-1] for crop in expected]
    crops = ten_crops(tf.constant(encoded), spec).numpy().astype(int)
    assert crops.shape == (10, 20, 20, 3)
    assert np.abs(crops - np.stack(expected)).max() <= 2
    assert np.abs(crops[4] - central_square(tf.constant(scene), spec).numpy()).max() <= 1
