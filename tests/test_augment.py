"""Augmentations against Pillow's formulas and their stated distributions."""

from collections import Counter
from itertools import product

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps
from scipy.stats import chisquare, kstest

from pipelines.config import AugmentConfig
from pipelines.data import augment as a

# What chance does less often than this, two-sided five standard deviations, is taken for a fault.
FIVE_SIGMA = 5.7e-7
LUMA = np.float64([0.299, 0.587, 0.114])


def draws(draw, count, seed=4):
    """What `draw` gives for `count` seeds, stacked."""
    drawn = tf.data.Dataset.range(count).map(lambda index: draw(tf.stack([seed, index])))
    return next(drawn.batch(count).as_numpy_iterator())


def assert_uniform(values, low, high, tolerance=0.0):
    """Uniform between the two, both of which are nearly reached.

    Args:
        tolerance: by how much a value may miss what was drawn.
    """
    assert low - tolerance <= values.min()
    assert values.max() <= high + tolerance
    near = 0.05 * (high - low) + tolerance
    assert values.min() < low + near
    assert values.max() > high - near
    assert kstest(values, "uniform", (low, high - low)).pvalue > FIVE_SIGMA


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


# NTSC's I and Q of RGB, as a complex number.
CHROMA = np.array([0.596, -0.274, -0.322]) + 1j * np.array([0.211, -0.523, 0.312])


def colours_near(grey, distance):
    """`(32, 32, 3)`: no noise clips them, so what it drew shows in what they become."""
    random = np.random.default_rng(2)
    return random.integers(grey - distance, grey + distance + 1, (32, 32, 3)).astype(np.uint8)


def colour_changes(before, after):
    """Of `(B, H, W, 3)`: change of the mean luma, and slopes of luma and (complex) chroma."""
    old, new = (np.float64(pixels).reshape(-1, 1024, 3) for pixels in (before[None], after))
    slopes = []
    for weights in (LUMA, CHROMA):
        was, now = (
            (pixels - pixels.mean(axis=1, keepdims=True)) @ weights for pixels in (old, new)
        )
        slopes.append((now * was.conj()).sum(axis=1) / (np.abs(was) ** 2).sum(axis=1))
    return (old @ LUMA).mean(axis=1), (new @ LUMA).mean(axis=1), *slopes


@pytest.mark.parametrize("strength", [0.2, 0.4])
def test_colour_jitter_draws_its_factors_uniformly(strength):
    muted = colours_near(90, 20)
    jittered = draws(lambda seed: a.colour_jitter(tf.constant(muted), strength, seed), 2000)
    assert 0 < jittered.min() < jittered.max() < 255
    was, now, luma, chroma = colour_changes(muted, jittered)
    factors = np.stack([now / was, luma / (now / was), np.abs(chroma) / luma])
    for values in factors:
        assert_uniform(values, 1 - strength, 1 + strength, tolerance=0.03)
    # Three draws, not one: five standard deviations.
    assert np.abs(np.corrcoef(factors) - np.eye(3)).max() < 5 / np.sqrt(2000)


def test_inception_colour_draws_from_the_published_ranges():
    """32 of 255 levels, factors of 0.5 to 1.5, and 0.2 of the circle."""
    muted = colours_near(128, 14)
    coloured = draws(lambda seed: a.inception_colour(tf.constant(muted), 1.0, seed), 2000)
    assert 0 < coloured.min() < coloured.max() < 255
    was, now, luma, chroma = colour_changes(muted, coloured)
    hue = np.angle(chroma) / (2 * np.pi)
    changes = np.stack([now - was, luma, np.abs(chroma) / luma, np.abs(hue)])
    assert_uniform(changes[0], -32, 32, tolerance=0.5)
    assert_uniform(changes[1], 0.5, 1.5, tolerance=0.03)
    assert_uniform(changes[2], 0.5, 1.5, tolerance=0.03)
    assert_uniform(hue, -0.2, 0.2, tolerance=0.01)
    assert np.abs(np.corrcoef(changes) - np.eye(4)).max() < 5 / np.sqrt(2000)


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
    side = 120
    white = tf.fill((side, side, 3), tf.constant(255, tf.uint8))
    images = draws(lambda seed: a.random_erasing(white, 0.6, seed), 500)
    areas, aspects, places, noise = [], [], [], []
    for image in images:
        changed = (image != 255).any(axis=-1)
        if changed.any():
            rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
            height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
            areas.append(height * width / side**2)
            aspects.append(width / height)
            places.append((rows[0] + 0.5) / (side - height + 1))
            places.append((columns[0] + 0.5) / (side - width + 1))
            noise.append(image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].reshape(-1, 3))
    # 500 coins of 0.6: five standard deviations are 55.
    assert abs(len(areas) - 300) < 55
    assert_uniform(np.array(areas), 0.02, 1 / 3, tolerance=0.005)
    assert_uniform(np.log(aspects), np.log(0.3), np.log(3.3), tolerance=0.1)
    assert_uniform(np.array(places), 0, 1)
    # Uniform over 256 levels, each channel for itself.
    noise = np.concatenate(noise)
    deviation = np.sqrt((256**2 - 1) / 12)
    assert abs(noise.mean() - 127.5) < 5 * deviation / np.sqrt(noise.size)
    assert abs(noise.std() / deviation - 1) < 5 / 2 * np.sqrt(0.8 / noise.size)
    assert chisquare(np.bincount(noise.ravel(), minlength=256)).pvalue > FIVE_SIGMA
    assert np.abs(np.corrcoef(noise.T) - np.eye(3)).max() < 5 / np.sqrt(len(noise))


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


def test_a_whole_cutmix_box_has_the_area_of_its_share(batch):
    """Its sides are those of the image times the share's root, to the nearest pixel."""
    images, labels = batch
    for share in np.linspace(0, 1, 21, dtype=np.float32):
        _, shares = a.cutmix(tf.constant(images), tf.constant(labels), share, tf.fill((2,), 0.5))
        height, width = (np.sqrt(share) * side for side in images.shape[1:3])
        off_by_one = (height + 1) * (width + 1) - height * width
        # The label of the first image is 3, of the last 9.
        assert abs(shares.numpy()[0, 9] * 600 - height * width) <= off_by_one


def test_cutmix_draws_its_boxes_anywhere():
    """A white image's box in a black one, from a share that is uniform before the edge cuts it."""
    height, width, count = 64, 96, 3000
    images = tf.constant(np.uint8([0, 255]).repeat(height * width * 3).reshape(2, height, width, 3))
    config = AugmentConfig(cutmix_alpha=1.0)

    def box(seed):
        mixed, labels = a.mix(images, tf.eye(2), config, seed)
        white = tf.cast(mixed[0, :, :, 0] == 255, tf.float32)
        return tf.reduce_max(white, 1), tf.reduce_max(white, 0), tf.reduce_sum(white), labels[0, 1]

    rows, columns, area, share = draws(box, count)
    tall, wide = rows.sum(axis=1), columns.sum(axis=1)
    assert (area == tall * wide).all()
    np.testing.assert_allclose(share, area / (height * width), atol=1e-6)
    # The mean over centres of what the edge leaves of a side s is s - s^2 / 4, so the mean of the
    # area over shares is 1/2 - 1/5 + 1/48.
    assert abs(share.mean() - (1 / 2 - 1 / 5 + 1 / 48)) < 5 * share.std() / np.sqrt(count)
    # Where one axis is not cut, its length tells the other's uncut one, and so where the centre is.
    for along, across in (((rows, height), (columns, width)), ((columns, width), (rows, height))):
        (edge, length), (other, other_length) = along, across
        whole = (other[:, 0] == 0) & (other[:, -1] == 0) & (edge.sum(axis=1) > 0)
        edge = edge[whole]
        half = other[whole].sum(axis=1) / other_length / 2
        begin, end = edge.argmax(axis=1) / length, 1 - edge[:, ::-1].argmax(axis=1) / length
        centre = np.where(begin > 0, begin + half, end - half)
        assert_uniform(centre, 0, 1, tolerance=2 / length)


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


# The strongest of each op in torchvision 0.29's `_AUGMENTATION_SPACE`: of RandAugment and
# AutoAugment, and of TrivialAugmentWide. Translation is a share of the side (of 224 pixels);
# posterize how many of eight bits are lost, solarize how far from white the threshold is.
PUBLISHED = {
    "Identity": (0.0, 0.0),
    "ShearX": (0.3, 0.99),
    "ShearY": (0.3, 0.99),
    "TranslateX": (150 / 331, 32 / 224),
    "TranslateY": (150 / 331, 32 / 224),
    "Rotate": (30.0, 135.0),
    "Brightness": (0.9, 0.99),
    "Color": (0.9, 0.99),
    "Contrast": (0.9, 0.99),
    "Sharpness": (0.9, 0.99),
    "Posterize": (4, 6),
    "Solarize": (1.0, 1.0),
    "AutoContrast": (0.0, 0.0),
    "Equalize": (0.0, 0.0),
}
NAMES = {
    **{name: name.lower() for name in PUBLISHED},
    "ShearX": "shear_x",
    "ShearY": "shear_y",
    "TranslateX": "translate_x",
    "TranslateY": "translate_y",
    "Color": "saturation",
    "Invert": "invert",
}
ONE_WAY = {"identity", "posterize", "solarize", "autocontrast", "equalize", "invert"}
# Cubuk et al. 2018, arXiv:1805.09501, Table 9: op, probability, level of 0 to 9.
TABLE_9 = """
Posterize 0.4 8, Rotate 0.6 9
Solarize 0.6 5, AutoContrast 0.6 5
Equalize 0.8 8, Equalize 0.6 3
Posterize 0.6 7, Posterize 0.6 6
Equalize 0.4 7, Solarize 0.2 4
Equalize 0.4 4, Rotate 0.8 8
Solarize 0.6 3, Equalize 0.6 7
Posterize 0.8 5, Equalize 1.0 2
Rotate 0.2 3, Solarize 0.6 8
Equalize 0.6 8, Posterize 0.4 6
Rotate 0.8 8, Color 0.4 0
Rotate 0.4 9, Equalize 0.6 2
Equalize 0.0 7, Equalize 0.8 8
Invert 0.6 4, Equalize 1.0 8
Color 0.6 4, Contrast 1.0 8
Rotate 0.8 8, Color 1.0 2
Color 0.8 8, Solarize 0.8 7
Sharpness 0.4 7, Invert 0.6 8
ShearX 0.6 5, Equalize 1.0 9
Color 0.4 0, Equalize 0.6 3
Equalize 0.4 7, Solarize 0.2 4
Solarize 0.6 5, AutoContrast 0.6 5
Invert 0.6 4, Equalize 1.0 8
Color 0.6 4, Contrast 1.0 8
Equalize 0.8 8, Equalize 0.6 3
"""


@pytest.fixture
def drawn_ops(monkeypatch):
    """Gives what a policy draws: names and strengths of ops, each `(draws, layers)`.

    Each op writes its number and its strength, four bytes, into the image instead.
    """
    names = list(a.OPS)

    def writing(number):
        def write(image, strength):
            entry = tf.concat([[tf.cast(number, tf.uint8)], tf.bitcast(strength, tf.uint8)], axis=0)
            return tf.concat([image[1:], entry[tf.newaxis, tf.newaxis]], axis=0)

        return write

    ops = {name: a.Op(writing(number), a.OPS[name].signed) for number, name in enumerate(names)}
    monkeypatch.setattr(a, "OPS", ops)

    def drawn(config, layers, count):
        page = tf.zeros((layers, 1, 5), tf.uint8)
        written = draws(lambda seed: a.POLICIES[config.policy](page, config, seed), count)[:, :, 0]
        strengths = np.ascontiguousarray(written[..., 1:]).view(np.float32)[..., 0]
        return np.array(names)[written[..., 0]], strengths

    return drawn


def assert_ops_and_signs_are_fair(names, strengths):
    """Each of the 14 ops as often, and each of two ways as often; all positive where one."""
    counts = Counter(names.ravel())
    assert set(counts) == {NAMES[name] for name in PUBLISHED}
    assert chisquare(list(counts.values())).pvalue > FIVE_SIGMA
    one_way = np.isin(names, list(ONE_WAY))
    assert (strengths[one_way] >= 0).all()
    signs = np.sign(strengths[~one_way & (strengths != 0)])
    assert abs(signs.mean()) < 5 / np.sqrt(len(signs))


@pytest.mark.parametrize("magnitude", [9.0, 22.0])
def test_randaugment_draws_ops_of_torchvisions_strengths(drawn_ops, magnitude):
    config = AugmentConfig(policy="randaugment", randaugment_magnitude=magnitude)
    names, strengths = drawn_ops(config, 2, 1500)
    assert_ops_and_signs_are_fair(names, strengths)
    for name, (strongest, _) in PUBLISHED.items():
        given = np.abs(strengths[names == NAMES[name]])
        np.testing.assert_allclose(given, strongest * magnitude / 30, rtol=1e-6)
    # The layers are drawn apart: five standard deviations of how often both are one op.
    assert abs((names[:, 0] == names[:, 1]).mean() - 1 / 14) < 5 * np.sqrt(13 / 14**2 / 1500)


def test_trivial_augment_draws_one_of_31_levels(drawn_ops):
    names, strengths = drawn_ops(AugmentConfig(policy="trivial_augment_wide"), 1, 4000)
    assert_ops_and_signs_are_fair(names, strengths)
    levels = []
    for name, (_, strongest) in PUBLISHED.items():
        given = np.abs(strengths[names == NAMES[name]])
        if strongest:
            levels += list(30 * given / strongest)
        else:
            assert (given == 0).all()
    whole = np.rint(levels).astype(int)
    np.testing.assert_allclose(levels, whole, atol=1e-4)
    assert chisquare(np.bincount(whole, minlength=31)).pvalue > FIVE_SIGMA
    assert whole.max() == 30


def table_9():
    """Rows of two ops: name, probability, and level; that of an op without strength is 0."""
    for line in TABLE_9.strip().splitlines():
        ops = [op.split() for op in line.split(", ")]
        yield tuple(
            (NAMES[name], float(probability), int(level) * (PUBLISHED.get(name, (0, 0))[0] > 0))
            for name, probability, level in ops
        )


def test_autoaugments_table_is_the_published_one():
    assert list(table_9()) == list(a.AUTOAUGMENT_IMAGENET)


def test_autoaugment_draws_rows_and_their_ops_as_often_as_published(drawn_ops):
    """How often each pair of ops at its levels comes, `identity` being an op that is left out."""
    count = 12_000
    names, strengths = drawn_ops(AugmentConfig(policy="autoaugment"), 2, count)
    seen = Counter(
        tuple((name, round(abs(float(strength)), 4)) for name, strength in zip(*pair, strict=True))
        for pair in zip(names, strengths, strict=True)
    )
    strongest = {NAMES[name]: strength for name, (strength, _) in PUBLISHED.items()}

    def outcomes(name, probability, level):
        op = name, round(strongest.get(name, 0.0) * level / 9, 4)
        return (op, probability), (("identity", 0.0), 1 - probability)

    expected = Counter()
    for row in table_9():
        for (first, p), (second, q) in product(*(outcomes(*op) for op in row)):
            expected[first, second] += p * q / 25
    for pair in seen | expected:
        deviation = np.sqrt(count * expected[pair] * (1 - expected[pair]))
        assert abs(seen[pair] - count * expected[pair]) <= 5 * deviation, pair
    signs = np.sign(strengths[~np.isin(names, list(ONE_WAY)) & (strengths != 0)])
    assert abs(signs.mean()) < 5 / np.sqrt(len(signs))


@pytest.mark.parametrize(
    ("level", "bits", "threshold"),
    [(0, 8, 256), (3, 8, 230), (9, 7, 179), (15, 6, 128), (30, 4, 0)],
)
def test_posterize_and_solarize_grow_with_the_level_as_published(level, bits, threshold):
    """torchvision keeps `8 - round(4 level / 30)` bits; the threshold falls from 256 to 0."""
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)

    def ours(name):
        strength = tf.constant(a.STRONGEST[name] * level / 30)
        return a.OPS[name].apply(tf.constant(ramp), strength).numpy()

    assert (ours("posterize") == ramp >> (8 - bits) << (8 - bits)).all()
    assert (ours("solarize") == np.where(ramp >= threshold, 255 - ramp, ramp)).all()


def test_randaugment_of_magnitude_zero_changes_nothing_but_by_ops_without_strength(scene):
    """Twelve ops of fourteen do nothing then; autocontrast and equalize do all they can."""
    scene = scene.copy()
    scene[0, 0] = 255
    config = AugmentConfig(policy="randaugment", randaugment_layers=1, randaugment_magnitude=0.0)
    images = draws(lambda seed: a.randaugment(tf.constant(scene), config, seed), 400)
    given = Counter(image.tobytes() for image in images)
    pillow = Image.fromarray(scene)
    stretched, equalized = (
        np.asarray(op(pillow)) for op in (ImageOps.autocontrast, ImageOps.equalize)
    )
    assert abs(given.pop(scene.tobytes()) - 400 * 12 / 14) < 5 * np.sqrt(400 * 12 * 2) / 14
    others = [np.frombuffer(image, np.uint8).reshape(scene.shape) for image in given]
    assert len(others) == 2
    for expected in (stretched, equalized):
        assert min(np.abs(image - expected.astype(int)).max() for image in others) <= 1
