"""Augmentations against Pillow's formulas and their stated distributions."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from pipelines.config import AugmentConfig
from pipelines.data import augment as a


@pytest.fixture(scope="module")
def scene():
    """A colour image that uses neither the whole range nor all of it evenly, 48 by 60."""
    y, x = np.mgrid[0:48, 0:60].astype(np.float64)
    waves = [np.sin(x / 9 + y / 14), np.cos(x / 23 - y / 5), np.sin(x * y / 400)]
    noise = np.random.default_rng(0).normal(scale=8, size=(48, 60, 3))
    return np.uint8(np.clip(np.rint(120 + 80 * np.stack(waves, axis=-1) + noise), 10, 240))


def affine(matrix):
    return lambda image: image.transform(
        image.size, Image.Transform.AFFINE, matrix, fillcolor=(128, 128, 128)
    )


# Pillow does each at the strength given, and may differ by the rounding of one level.
PILLOW = {
    "brightness": (0.4, lambda image: ImageEnhance.Brightness(image).enhance(1.4)),
    "saturation": (-0.6, lambda image: ImageEnhance.Color(image).enhance(0.4)),
    "contrast": (0.7, lambda image: ImageEnhance.Contrast(image).enhance(1.7)),
    "sharpness": (0.9, lambda image: ImageEnhance.Sharpness(image).enhance(1.9)),
    "posterize": (3.0, lambda image: ImageOps.posterize(image, 5)),
    "solarize": (0.5, lambda image: ImageOps.solarize(image, 128)),
    "autocontrast": (0.0, ImageOps.autocontrast),
    "equalize": (0.0, ImageOps.equalize),
    "invert": (0.0, ImageOps.invert),
    "shear_x": (0.3, affine((1, 0.3, 0, 0, 1, 0))),
    "shear_y": (-0.2, affine((1, 0, 0, -0.2, 1, 0))),
    "translate_x": (0.25, affine((1, 0, 15, 0, 1, 0))),
    "translate_y": (-0.25, affine((1, 0, 0, 0, 1, -12))),
    "rotate": (25.0, lambda image: image.rotate(25, fillcolor=(128, 128, 128))),
}
# The nearest of two pixels at equal distance may be either.
GEOMETRY = {"shear_x", "shear_y", "translate_x", "translate_y", "rotate"}
WITHOUT_STRENGTH = {"autocontrast", "equalize", "invert"}


@pytest.mark.parametrize("name", PILLOW)
def test_each_op_is_pillows(scene, name):
    strength, pillow = PILLOW[name]
    ours = a.OPS[name].apply(tf.constant(scene), tf.constant(strength)).numpy()
    theirs = np.asarray(pillow(Image.fromarray(scene)))
    assert (ours.shape, ours.dtype) == (scene.shape, np.uint8)
    difference = np.abs(ours.astype(int) - theirs)
    if name in GEOMETRY:
        assert (difference.max(axis=-1) > 0).mean() < 0.005
    else:
        assert difference.max() <= 1


@pytest.mark.parametrize("name", set(a.OPS) - WITHOUT_STRENGTH)
def test_an_op_of_strength_zero_changes_nothing(scene, name):
    assert (a.OPS[name].apply(tf.constant(scene), tf.constant(0.0)).numpy() == scene).all()


def test_every_row_of_every_table_is_an_op():
    for table in (a.STRONGEST, a.STRONGEST_WIDE, a.STRONGEST_AUTOAUGMENT):
        assert set(table) <= set(a.OPS)
    assert len(a.AUTOAUGMENT_IMAGENET) == 25
    assert len(a.STRONGEST) == 14


@pytest.mark.parametrize(
    "config",
    [
        AugmentConfig(policy="randaugment", randaugment_layers=3, randaugment_magnitude=30),
        AugmentConfig(policy="trivial_augment_wide"),
        AugmentConfig(policy="autoaugment"),
        AugmentConfig(colour_jitter=1.0),
        AugmentConfig(inception_colour=1.0),
        AugmentConfig(pca_lighting=0.5),
        AugmentConfig(erasing_probability=1.0),
    ],
    ids=lambda config: next(
        name
        for name in ("policy", "colour_jitter", "inception_colour", "pca_lighting", "erasing_pr")
        if str(getattr(config, name, 1.0)) not in ("none", "0.0")
    ),
)
def test_eagerly_and_inside_tf_data_the_pixels_are_the_same(scene, config):
    def augmented(index):
        return a.augment_image(tf.constant(scene), config, tf.stack([7, index]))

    indices = tf.data.Dataset.range(40).map(lambda index: tf.cast(index, tf.int32))
    in_tf_data = np.stack(list(indices.map(augmented).as_numpy_iterator()))
    assert in_tf_data.dtype == np.uint8
    assert in_tf_data.shape == (40, *scene.shape)
    for index in range(4):
        eagerly = augmented(tf.constant(index)).numpy().astype(int)
        # Compiled and eager arithmetic may round one level apart.
        assert np.abs(eagerly - in_tf_data[index]).max() <= 1
    assert len({image.tobytes() for image in in_tf_data}) > 10


@pytest.mark.parametrize("op", [a.colour_jitter, a.inception_colour, a.pca_lighting])
def test_colour_noise_of_strength_zero_changes_nothing(scene, op):
    assert (op(tf.constant(scene), 0.0, tf.constant([1, 2])).numpy() == scene).all()


def test_recolour_does_what_the_formulas_say(scene):
    pixels, luma = scene / 1.0, scene @ np.float64([0.299, 0.587, 0.114])
    cases = {
        "gain": (0.7, pixels * 0.7),
        "offset": (20.0, pixels + 20),
        "contrast": (1.5, luma.mean() + 1.5 * (pixels - luma.mean())),
        "saturation": (0.3, luma[..., None] + 0.3 * (pixels - luma[..., None])),
    }
    for name, (value, expected) in cases.items():
        ours = a.recolour(tf.constant(scene), **{name: value}).numpy()
        assert np.abs(ours - np.clip(expected, 0, 255)).max() <= 1.01, name


def test_hue_turns_and_comes_back(scene):
    muted = a.recolour(tf.constant(scene), saturation=0.3)
    turned = a.recolour(muted, hue=2.0)
    assert np.abs(turned.numpy().astype(int) - muted.numpy()).max() > 10
    luma = np.float64([0.299, 0.587, 0.114])
    assert np.abs(turned.numpy() @ luma - muted.numpy() @ luma).max() < 1.5
    back = a.recolour(turned, hue=-2.0).numpy()
    assert np.abs(back.astype(int) - muted.numpy()).max() <= 2


def test_pca_lighting_has_the_stated_deviation():
    grey = tf.fill((1, 1, 3), tf.constant(128, tf.uint8))
    shifts = [
        a.pca_lighting(grey, 0.1, tf.constant([3, index])).numpy()[0, 0] - 128.0
        for index in range(600)
    ]
    covariance = (a.PCA_DIRECTIONS * (25.5 * a.PCA_STD) ** 2) @ a.PCA_DIRECTIONS.T
    np.testing.assert_allclose(np.std(shifts, axis=0), np.sqrt(np.diag(covariance)), rtol=0.12)
    assert np.abs(np.mean(shifts, axis=0)).max() < 0.9


def test_erased_rectangles_have_the_stated_size_and_hold_noise():
    white = tf.fill((100, 140, 3), tf.constant(255, tf.uint8))
    erase = tf.function(lambda index: a.random_erasing(white, 0.6, tf.stack([5, index])))
    areas, aspects = [], []
    for index in range(400):
        changed = (erase(tf.constant(index)).numpy() != 255).any(axis=-1)
        if changed.any():
            rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
            height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
            assert changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].mean() > 0.99
            areas.append(height * width / (100 * 140))
            aspects.append(width / height)
    # 400 coins of 0.6: five standard deviations are 49.
    assert 191 < len(areas) < 289
    assert 0.015 < min(areas) < 0.035
    assert 0.29 < max(areas) < 0.345
    assert 0.28 < min(aspects) < 0.45
    assert 2.3 < max(aspects) < 3.6
    assert 0.15 < np.mean(areas) < 0.2
    noise = erase(tf.constant(0)).numpy() if areas else None
    assert noise is not None


def test_a_probability_of_zero_erases_nothing(scene):
    for index in range(20):
        image = a.random_erasing(tf.constant(scene), 0.0, tf.constant([5, index]))
        assert (image.numpy() == scene).all()


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (6, 20, 30, 3)).astype(np.uint8)
    return images, np.eye(10, dtype=np.float32)[[3, 1, 4, 1, 5, 9]]


def test_mixup_is_a_weighted_mean(batch):
    images, labels = batch
    mixed, shares = a.mixup(tf.constant(images), tf.constant(labels), 0.3)
    expected = 0.7 * images + 0.3 * images[::-1]
    assert np.abs(mixed.numpy() - expected).max() <= 0.51
    np.testing.assert_allclose(shares, 0.7 * labels + 0.3 * labels[::-1], atol=1e-6)
    assert (a.mixup(images, labels, 0.0)[0].numpy() == images).all()


@pytest.mark.parametrize("at", [(0.5, 0.5), (0.0, 0.0), (0.9, 0.2)])
def test_cutmix_shares_labels_as_it_shares_pixels(batch, at):
    images, labels = batch
    mixed, shares = (
        part.numpy()
        for part in a.cutmix(tf.constant(images), tf.constant(labels), 0.3, tf.constant(at))
    )
    foreign = (mixed != images).any(axis=-1)
    assert (mixed[foreign] == images[::-1][foreign]).all()
    share = (mixed == images[::-1]).all(axis=-1).mean()
    np.testing.assert_allclose(shares, (1 - share) * labels + share * labels[::-1], atol=1e-3)
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-6)
    assert (a.cutmix(images, labels, 0.0, tf.constant(at))[0].numpy() == images).all()


def test_mixing_draws_its_share_from_the_beta_distribution(batch):
    """Mixup's share shows in the labels; Beta(0.4, 0.4) has variance 1 / (4 (2 alpha + 1))."""
    images, labels = batch
    config = AugmentConfig(mixup_alpha=0.4)

    @tf.function
    def share(step):
        return a.mix(tf.constant(images), tf.constant(labels), config, tf.stack([9, step]))[1][0, 9]

    shares = np.array([share(tf.constant(step)).numpy() for step in range(800)])
    assert abs(shares.mean() - 0.5) < 0.07
    assert abs(shares.var() - 1 / (4 * 1.8)) < 0.015


def test_where_both_mixes_are_on_each_batch_takes_either(batch):
    images, labels = batch
    config = AugmentConfig(mixup_alpha=1.0, cutmix_alpha=1.0)
    mix = tf.function(
        lambda step: a.mix(tf.constant(images), tf.constant(labels), config, tf.stack([9, step]))
    )
    cut = 0
    for step in range(100):
        mixed = mix(tf.constant(step))[0].numpy()
        cut += ((mixed == images) | (mixed == images[::-1])).all(axis=-1).all()
    assert 25 < cut < 75


def test_policies_choose_each_op_equally_often():
    draws = tf.map_fn(
        lambda index: tf.stack(
            [tf.cast(part, tf.float32) for part in a._draw(tf.stack([2, index]), 14)]
        ),
        tf.range(2800),
        fn_output_signature=tf.float32,
    ).numpy()
    counts = np.bincount(draws[:, 0].astype(int), minlength=14)
    # 200 of each expected: five standard deviations are 68.
    assert counts.shape == (14,)
    assert np.abs(counts - 200).max() < 68
    assert abs(draws[:, 1].mean()) < 0.1
    assert abs(draws[:, 2].mean() - 0.5) < 0.03
