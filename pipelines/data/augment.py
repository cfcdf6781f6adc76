"""Augmentation: small pure functions over tensors.

Images are uint8 `(H, W, C)` in [0, 255] and stay so; batches are uint8 `(B, H, W, C)`. An op whose
strength is zero gives back what it was given; autocontrast, equalize and invert have no strength.
Nothing here keeps a state: what is drawn, is drawn from a `seed`, int32 or int64 `(2,)`.

Deviations from the publications, all of them:
- values are rounded to the nearest integer, where Pillow cuts the fraction off;
- what geometry brings in from outside the image is grey (128); pixels are sampled, as in Pillow,
  from the nearest one;
- a colour change is one 3 by 3 matrix and clipped once, so the order of its parts (which Inception
  draws) makes no difference; hue is an angle in the YIQ plane instead of HSV's;
- solarize inverts from `256 * (1 - share)` on, so that share zero changes nothing;
- TrivialAugment moves an image by up to a seventh of its side, which is 32 pixels of 224, not by
  32 pixels whatever its size;
- random erasing cuts a rectangle that does not fit at the image's edge, instead of drawing again;
- mixup and cutmix draw one share for a batch, and mix it with itself in reverse order.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from pipelines.config import AugmentConfig
from pipelines.data.images import to_uint8

GREY = 128
LUMA = (0.299, 0.587, 0.114)
YIQ = np.float32([LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)])
# Principal components of ImageNet's RGB values in [0, 1]: standard deviations and directions.
PCA_STD = np.float32([0.2175, 0.0188, 0.0045])
PCA_DIRECTIONS = np.float32(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
)


# Colour


def recolour(
    image: tf.Tensor,
    *,
    gain: tf.Tensor | float = 1.0,
    offset: tf.Tensor | float = 0.0,
    contrast: tf.Tensor | float = 1.0,
    saturation: tf.Tensor | float = 1.0,
    hue: tf.Tensor | float = 0.0,
) -> tf.Tensor:
    """Changes the colours of an RGB image by one affine map of its pixels.

    Args:
        image: uint8 `(H, W, 3)`.
        gain: factor of every value.
        offset: added to every value, in pixel units.
        contrast: factor of the distance to the mean luma.
        saturation: factor of the distance to the pixel's own luma.
        hue: angle in radians by which chroma turns in the YIQ plane.
    """
    pixels = tf.cast(image, tf.float32)
    cos, sin = saturation * tf.cos(hue), saturation * tf.sin(hue)
    turn = tf.reshape(tf.stack([1.0, 0, 0, 0, cos, -sin, 0, sin, cos]), (3, 3))
    matrix = gain * contrast * (np.linalg.inv(YIQ) @ turn @ YIQ)
    mean_luma = tf.tensordot(tf.reduce_mean(pixels, axis=(0, 1)), tf.constant(LUMA), 1)
    bias = gain * (1 - contrast) * mean_luma + offset
    return to_uint8(tf.tensordot(pixels, matrix, [[2], [1]]) + bias)


def colour_jitter(image: tf.Tensor, strength: float, seed: tf.Tensor) -> tf.Tensor:
    """Brightness, contrast and saturation, each times a factor in `1 ± strength`, uniform."""
    gain, contrast, saturation = tf.unstack(
        tf.random.stateless_uniform((3,), seed, max(0.0, 1 - strength), 1 + strength)
    )
    return recolour(image, gain=gain, contrast=contrast, saturation=saturation)


def inception_colour(image: tf.Tensor, strength: float, seed: tf.Tensor) -> tf.Tensor:
    """The colour distortion of Inception's training (Szegedy et al. 2014, arXiv:1409.4842).

    At strength 1, uniformly: 32 grey levels up or down, contrast and saturation times 0.5 to 1.5,
    hue by up to a fifth of the circle either way.
    """
    offset, contrast, saturation, hue = tf.unstack(
        strength * tf.random.stateless_uniform((4,), seed, -1, 1)
    )
    return recolour(
        image,
        offset=32 * offset,
        contrast=1 + 0.5 * contrast,
        saturation=1 + 0.5 * saturation,
        hue=0.2 * 2 * math.pi * hue,
    )


def pca_lighting(image: tf.Tensor, strength: float, seed: tf.Tensor) -> tf.Tensor:
    """AlexNet's lighting noise (Krizhevsky et al. 2012, NIPS): one colour added to all pixels.

    Along each principal component of ImageNet's colours, its standard deviation times a normal
    draw of standard deviation `strength` (0.1 in the publication). RGB only.
    """
    draws = tf.random.stateless_normal((3,), seed, stddev=strength)
    shift = 255 * tf.linalg.matvec(PCA_DIRECTIONS, draws * PCA_STD)
    return to_uint8(tf.cast(image, tf.float32) + shift)


def brightness(image: tf.Tensor, change: tf.Tensor | float) -> tf.Tensor:
    """Every value times `1 + change`."""
    return to_uint8(tf.cast(image, tf.float32) * (1 + change))


def contrast(image: tf.Tensor, change: tf.Tensor | float) -> tf.Tensor:
    """Away from the mean luma, rounded, by `1 + change`."""
    pixels = tf.cast(image, tf.float32)
    return _blend(pixels, tf.floor(tf.reduce_mean(_luma(pixels)) + 0.5), change)


def saturation(image: tf.Tensor, change: tf.Tensor | float) -> tf.Tensor:
    """Away from each pixel's own luma by `1 + change`."""
    pixels = tf.cast(image, tf.float32)
    return _blend(pixels, tf.floor(_luma(pixels) + 0.5), change)


def sharpness(image: tf.Tensor, change: tf.Tensor | float) -> tf.Tensor:
    """Away from the image smoothed by 3x3 (the middle weighs 5) by `1 + change`; not its edge."""
    pixels = tf.cast(image, tf.float32)
    rows = pixels[:-2] + pixels[1:-1] + pixels[2:]
    inner = pixels[1:-1, 1:-1]
    smooth = (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * inner) / 13
    away = tf.pad(inner - tf.floor(smooth + 0.5), [[1, 1], [1, 1], [0, 0]])
    return to_uint8(pixels + change * away)


def posterize(image: tf.Tensor, bits: tf.Tensor | float) -> tf.Tensor:
    """Sets the lowest `bits` of every value, rounded to a whole number, to zero."""
    lost = tf.cast(tf.round(bits), tf.int32)
    kept = tf.cast(tf.bitwise.left_shift(255 * tf.ones_like(lost), lost) % 256, tf.uint8)
    return tf.bitwise.bitwise_and(image, kept)


def solarize(image: tf.Tensor, share: tf.Tensor | float) -> tf.Tensor:
    """Inverts the values from `256 * (1 - share)` on."""
    threshold = tf.cast(tf.round(256 * (1 - share)), tf.int16)
    return tf.bitwise.bitwise_xor(
        image, tf.cast(tf.cast(image, tf.int16) >= threshold, tf.uint8) * np.uint8(255)
    )


def invert(image: tf.Tensor) -> tf.Tensor:
    """255 minus every value."""
    return tf.bitwise.invert(image)


def autocontrast(image: tf.Tensor) -> tf.Tensor:
    """Stretches each channel to the whole range; a channel of one value stays."""
    low = tf.cast(tf.reduce_min(image, axis=(0, 1)), tf.float32)
    high = tf.cast(tf.reduce_max(image, axis=(0, 1)), tf.float32)
    flat = high == low
    scale = tf.where(flat, 1.0, 255 / tf.where(flat, 1.0, high - low))
    return to_uint8((tf.cast(image, tf.float32) - tf.where(flat, 0.0, low)) * scale)


def equalize(image: tf.Tensor) -> tf.Tensor:
    """Makes each channel's histogram as flat as Pillow's `ImageOps.equalize` does."""
    channels = image.shape[-1]
    slots = tf.cast(image, tf.int32) + 256 * tf.range(channels)
    counts = tf.math.bincount(tf.reshape(slots, [-1]), minlength=256 * channels)
    counts = tf.reshape(counts, (channels, 256))
    brightest = tf.reduce_max(tf.where(counts > 0, tf.range(256), 0), axis=1)
    last = tf.gather(counts, brightest, batch_dims=1)
    step = (tf.reduce_sum(counts, axis=1) - last)[:, tf.newaxis] // 255
    below = tf.cumsum(counts, axis=1, exclusive=True)
    level = (below + step // 2) // tf.maximum(step, 1)
    table = tf.where(step > 0, tf.minimum(level, 255), tf.range(256))
    return tf.gather(tf.reshape(tf.cast(table, tf.uint8), [-1]), slots)


# Geometry


def affine(image: tf.Tensor, matrix: list) -> tf.Tensor:
    """The nearest pixel of the source for each of the result, as Pillow's `Image.AFFINE`.

    Args:
        image: uint8 `(H, W, C)`.
        matrix: `a, b, c, d, e, f`: the result at (x, y) is the source at
            `(a x + b y + c, d x + e y + f)`, in pixels, the centre of the first at 0.5.
    """
    a, b, c, d, e, f = matrix
    height, width, channels = tf.shape(image)[0], tf.shape(image)[1], image.shape[-1]
    x = tf.range(tf.cast(width, tf.float32))[tf.newaxis] + 0.5
    y = tf.range(tf.cast(height, tf.float32))[:, tf.newaxis] + 0.5
    # One grey pixel all round, so that what is outside lands there.
    source_x = _clipped(a * x + (b * y + (c + 1)), width + 1)
    source_y = _clipped(d * x + (e * y + (f + 1)), height + 1)
    framed = tf.pad(image, [[1, 1], [1, 1], [0, 0]], constant_values=GREY)
    pixels = tf.reshape(framed, (-1, channels))
    return tf.reshape(tf.gather(pixels, source_y * (width + 2) + source_x), tf.shape(image))


def _clipped(coordinate: tf.Tensor, highest: tf.Tensor) -> tf.Tensor:
    """Whole coordinates from 0 to `highest`; those below 1 are in the frame."""
    return tf.cast(tf.clip_by_value(coordinate, 0, tf.cast(highest, tf.float32)), tf.int32)


def shear_x(image: tf.Tensor, slope: tf.Tensor | float) -> tf.Tensor:
    """Moves each row left by `slope` times its distance from the top."""
    return affine(image, [1.0, slope, 0.0, 0.0, 1.0, 0.0])


def shear_y(image: tf.Tensor, slope: tf.Tensor | float) -> tf.Tensor:
    """Moves each column up by `slope` times its distance from the left."""
    return affine(image, [1.0, 0.0, 0.0, slope, 1.0, 0.0])


def translate_x(image: tf.Tensor, share: tf.Tensor | float) -> tf.Tensor:
    """Moves the image left by a share of its width, to the nearest pixel."""
    shift = tf.round(share * tf.cast(tf.shape(image)[1], tf.float32))
    return affine(image, [1.0, 0.0, shift, 0.0, 1.0, 0.0])


def translate_y(image: tf.Tensor, share: tf.Tensor | float) -> tf.Tensor:
    """Moves the image up by a share of its height, to the nearest pixel."""
    shift = tf.round(share * tf.cast(tf.shape(image)[0], tf.float32))
    return affine(image, [1.0, 0.0, 0.0, 0.0, 1.0, shift])


def rotate(image: tf.Tensor, degrees: tf.Tensor | float) -> tf.Tensor:
    """Turns the image about its centre, anticlockwise."""
    angle = degrees * (math.pi / 180)
    cos, sin = tf.cos(angle), tf.sin(angle)
    y, x = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float32) / 2)
    return affine(image, [cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y])


# Policies: which op, and how strong


class Op(NamedTuple):
    """An op of a policy: `(image, strength) -> image`, and whether it goes both ways."""

    apply: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    signed: bool


OPS = {
    "identity": Op(lambda image, _: image, False),
    "shear_x": Op(shear_x, True),
    "shear_y": Op(shear_y, True),
    "translate_x": Op(translate_x, True),
    "translate_y": Op(translate_y, True),
    "rotate": Op(rotate, True),
    "brightness": Op(brightness, True),
    "saturation": Op(saturation, True),
    "contrast": Op(contrast, True),
    "sharpness": Op(sharpness, True),
    "posterize": Op(posterize, False),
    "solarize": Op(solarize, False),
    "autocontrast": Op(lambda image, _: autocontrast(image), False),
    "equalize": Op(lambda image, _: equalize(image), False),
    "invert": Op(lambda image, _: invert(image), False),
}

# The strength of each op at the highest level.
STRONGEST = {
    "identity": 0.0,
    "shear_x": 0.3,
    "shear_y": 0.3,
    "translate_x": 150 / 331,
    "translate_y": 150 / 331,
    "rotate": 30.0,
    "brightness": 0.9,
    "saturation": 0.9,
    "contrast": 0.9,
    "sharpness": 0.9,
    "posterize": 4.0,
    "solarize": 1.0,
    "autocontrast": 0.0,
    "equalize": 0.0,
}
STRONGEST_WIDE = STRONGEST | {
    "shear_x": 0.99,
    "shear_y": 0.99,
    "translate_x": 32 / 224,
    "translate_y": 32 / 224,
    "rotate": 135.0,
    "brightness": 0.99,
    "saturation": 0.99,
    "contrast": 0.99,
    "sharpness": 0.99,
    "posterize": 6.0,
}
STRONGEST_AUTOAUGMENT = STRONGEST | {"invert": 0.0}
HIGHEST_LEVEL = 30

# Two ops a row: name, probability, level of 0 to 9.
AUTOAUGMENT_IMAGENET = (
    (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
    (("solarize", 0.6, 5), ("autocontrast", 0.6, 0)),
    (("equalize", 0.8, 0), ("equalize", 0.6, 0)),
    (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
    (("equalize", 0.4, 0), ("solarize", 0.2, 4)),
    (("equalize", 0.4, 0), ("rotate", 0.8, 8)),
    (("solarize", 0.6, 3), ("equalize", 0.6, 0)),
    (("posterize", 0.8, 5), ("equalize", 1.0, 0)),
    (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
    (("equalize", 0.6, 0), ("posterize", 0.4, 6)),
    (("rotate", 0.8, 8), ("saturation", 0.4, 0)),
    (("rotate", 0.4, 9), ("equalize", 0.6, 0)),
    (("equalize", 0.0, 0), ("equalize", 0.8, 0)),
    (("invert", 0.6, 0), ("equalize", 1.0, 0)),
    (("saturation", 0.6, 4), ("contrast", 1.0, 8)),
    (("rotate", 0.8, 8), ("saturation", 1.0, 2)),
    (("saturation", 0.8, 8), ("solarize", 0.8, 7)),
    (("sharpness", 0.4, 7), ("invert", 0.6, 0)),
    (("shear_x", 0.6, 5), ("equalize", 1.0, 0)),
    (("saturation", 0.4, 0), ("equalize", 0.6, 0)),
    (("equalize", 0.4, 0), ("solarize", 0.2, 4)),
    (("solarize", 0.6, 5), ("autocontrast", 0.6, 0)),
    (("invert", 0.6, 0), ("equalize", 1.0, 0)),
    (("saturation", 0.6, 4), ("contrast", 1.0, 8)),
    (("equalize", 0.8, 0), ("equalize", 0.6, 0)),
)


def apply_op(
    image: tf.Tensor, index: tf.Tensor, share: tf.Tensor, sign: tf.Tensor, strongest: dict
) -> tf.Tensor:
    """One op of a table.

    Args:
        image: uint8 `(H, W, 3)`.
        index: which row of `strongest`.
        share: of the strongest, in [0, 1].
        sign: 1 or -1; the direction of ops that have two.
        strongest: the strength of each op at share 1.
    """

    def branch(name: str) -> Callable[[], tf.Tensor]:
        op = OPS[name]
        strength = share * strongest[name] * (sign if op.signed else 1.0)
        return lambda: tf.ensure_shape(op.apply(image, strength), image.shape)

    return tf.switch_case(index, [branch(name) for name in strongest])


def randaugment(image: tf.Tensor, config: AugmentConfig, seed: tf.Tensor) -> tf.Tensor:
    """RandAugment (Cubuk et al. 2019, arXiv:1909.13719): ops at random, one after another."""
    for layer_seed in tf.unstack(tf.random.split(seed, config.randaugment_layers)):
        index, sign, _ = _draw(layer_seed, len(STRONGEST))
        share = tf.constant(config.randaugment_magnitude / HIGHEST_LEVEL)
        image = apply_op(image, index, share, sign, STRONGEST)
    return image


def trivial_augment_wide(image: tf.Tensor, config: AugmentConfig, seed: tf.Tensor) -> tf.Tensor:
    """TrivialAugment (Müller and Hutter 2021, arXiv:2103.10158), the wide space: one op."""
    index, sign, uniform = _draw(seed, len(STRONGEST_WIDE))
    share = tf.floor(uniform * (HIGHEST_LEVEL + 1)) / HIGHEST_LEVEL
    return apply_op(image, index, share, sign, STRONGEST_WIDE)


def autoaugment(image: tf.Tensor, config: AugmentConfig, seed: tf.Tensor) -> tf.Tensor:
    """AutoAugment's ImageNet policy (Cubuk et al. 2018, arXiv:1805.09501): two ops of a row."""
    names = list(STRONGEST_AUTOAUGMENT)
    table = tf.constant(
        [
            [[names.index(name), probability, level / 9] for name, probability, level in row]
            for row in AUTOAUGMENT_IMAGENET
        ],
        tf.float32,
    )
    row_seed, *op_seeds = tf.unstack(tf.random.split(seed, 3))
    row = table[tf.random.stateless_uniform((), row_seed, 0, len(table), tf.int32)]
    for (index, probability, share), op_seed in zip(
        (tf.unstack(op) for op in tf.unstack(row)), op_seeds, strict=True
    ):
        _, sign, uniform = _draw(op_seed, 1)
        applied = tf.where(uniform < probability, tf.cast(index, tf.int32), 0)
        image = apply_op(image, applied, share, sign, STRONGEST_AUTOAUGMENT)
    return image


def _draw(seed: tf.Tensor, choices: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """A choice in [0, choices), a sign of 1 or -1, and a number in [0, 1)."""
    choice, sign, uniform = tf.unstack(tf.random.stateless_uniform((3,), seed))
    return tf.cast(choice * choices, tf.int32), tf.where(sign < 0.5, -1.0, 1.0), uniform


POLICIES = {
    "none": lambda image, config, seed: image,
    "randaugment": randaugment,
    "trivial_augment_wide": trivial_augment_wide,
    "autoaugment": autoaugment,
}


# Erasing


def random_erasing(image: tf.Tensor, probability: float, seed: tf.Tensor) -> tf.Tensor:
    """Random erasing (Zhong et al. 2017, arXiv:1708.04896): a rectangle of noise.

    With `probability`; its area is 2% to a third of the image's, uniform, its aspect ratio 0.3 to
    3.3, the logarithm uniform; the noise is uniform over [0, 255].
    """
    box_seed, noise_seed = tf.unstack(tf.random.split(seed, 2))
    coin, area, aspect, at_y, at_x = tf.unstack(tf.random.stateless_uniform((5,), box_seed))

    def erased() -> tf.Tensor:
        ratio = tf.exp(math.log(0.3) + aspect * math.log(3.3 / 0.3))
        share = 0.02 + area * (1 / 3 - 0.02)
        sides = tf.sqrt(share * tf.stack([1 / ratio, ratio]))
        box = _box(tf.shape(image)[:2], sides, tf.stack([at_y, at_x]))
        noise = _noise(box[2], box[3], image.shape[-1], noise_seed)
        return _pasted(image, noise, box)

    return tf.cond(coin < probability, erased, lambda: image)


def _box(full: tf.Tensor, sides: tf.Tensor, at: tf.Tensor) -> tf.Tensor:
    """int32 `(top, left, height, width)` of a box inside an image.

    Args:
        full: int32 `(height, width)` of the image.
        sides: the box's, as shares of the square root of the image's area.
        at: where its corner lies of where it can lie, in [0, 1).
    """
    area = tf.cast(full[0] * full[1], tf.float32)
    size = tf.minimum(tf.cast(tf.round(sides * tf.sqrt(area)), tf.int32), full)
    corner = tf.cast(at * tf.cast(full - size + 1, tf.float32), tf.int32)
    return tf.concat([corner, size], axis=0)


def _noise(height: tf.Tensor, width: tf.Tensor, channels: int, seed: tf.Tensor) -> tf.Tensor:
    """uint8 `(height, width, channels)`, uniform."""
    values = height * width * channels
    words = tf.random.stateless_uniform([values // 4 + 1], seed, None, None, tf.int32)
    noise = tf.reshape(tf.bitcast(words, tf.uint8), [-1])[:values]
    return tf.reshape(noise, (height, width, channels))


def _pasted(images: tf.Tensor, patch: tf.Tensor, box: tf.Tensor) -> tf.Tensor:
    """`(..., H, W, C)` with `patch` in place of the box `(top, left, height, width)`."""
    top, left, height, width = tf.unstack(box)
    rows = images[..., top : top + height, :, :]
    band = tf.concat([rows[..., :left, :], patch, rows[..., left + width :, :]], axis=-2)
    above, below = images[..., :top, :, :], images[..., top + height :, :, :]
    return tf.ensure_shape(tf.concat([above, band, below], axis=-3), images.shape)


# Batches


def mixup(
    images: tf.Tensor, labels: tf.Tensor, share: tf.Tensor | float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mixup (Zhang et al. 2017, arXiv:1710.09412): each image keeps `1 - share` of itself.

    Args:
        images: uint8 `(B, H, W, C)`.
        labels: float32 `(B, num_classes)`.
        share: what each takes of the image that comes as far from the batch's end.
    """
    pixels = tf.cast(images, tf.float32)
    mixed = pixels + share * (tf.reverse(pixels, [0]) - pixels)
    return tf.cast(mixed + 0.5, tf.uint8), labels + share * (tf.reverse(labels, [0]) - labels)


def cutmix(
    images: tf.Tensor, labels: tf.Tensor, share: tf.Tensor | float, at: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """CutMix (Yun et al. 2019, arXiv:1905.04899): a box of each image is another's.

    Args:
        images: uint8 `(B, H, W, C)`.
        labels: float32 `(B, num_classes)`; shared as the pixels are, exactly.
        share: of the image's area, in [0, 1]; the box has the image's aspect ratio.
        at: `(2,)`, the box's centre as a share of height and width; the box is cut at the edge.
    """
    full = tf.cast(tf.shape(images)[1:3], tf.float32)
    half, centre = full * tf.sqrt(share) / 2, full * at
    begin = tf.cast(tf.round(tf.maximum(centre - half, 0)), tf.int32)
    end = tf.cast(tf.round(tf.minimum(centre + half, full)), tf.int32)
    patch = tf.reverse(images[:, begin[0] : end[0], begin[1] : end[1]], [0])
    mixed = _pasted(images, patch, tf.concat([begin, end - begin], axis=0))
    replaced = tf.cast(tf.reduce_prod(end - begin), tf.float32) / tf.reduce_prod(full)
    return mixed, labels + replaced * (tf.reverse(labels, [0]) - labels)


def mix(
    images: tf.Tensor, labels: tf.Tensor, config: AugmentConfig, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mixup or cutmix of a batch, each with its own alpha; either at random where both are on."""
    coin_seed, share_seed, at_seed = tf.unstack(tf.random.split(seed, 3))

    def by_mixup() -> tuple[tf.Tensor, tf.Tensor]:
        return mixup(images, labels, _beta(config.mixup_alpha, share_seed))

    def by_cutmix() -> tuple[tf.Tensor, tf.Tensor]:
        at = tf.random.stateless_uniform((2,), at_seed)
        return cutmix(images, labels, _beta(config.cutmix_alpha, share_seed), at)

    ways = [by_mixup] * (config.mixup_alpha > 0) + [by_cutmix] * (config.cutmix_alpha > 0)
    return tf.switch_case(tf.random.stateless_uniform((), coin_seed, 0, len(ways), tf.int32), ways)


def _beta(alpha: float, seed: tf.Tensor) -> tf.Tensor:
    """A draw from Beta(alpha, alpha)."""
    a, b = tf.unstack(tf.random.stateless_gamma((2,), seed, alpha, dtype=tf.float64))
    return tf.cast(a / (a + b), tf.float32)


# All that happens to one image after its crop


def augment_image(image: tf.Tensor, config: AugmentConfig, seed: tf.Tensor) -> tf.Tensor:
    """uint8 `(H, W, C)` -> the same: policy, colour, erasing; those whose strength is not zero."""
    policy_seed, jitter_seed, colour_seed, pca_seed, erasing_seed = tf.unstack(
        tf.random.split(seed, 5)
    )
    image = POLICIES[config.policy](image, config, policy_seed)
    if config.colour_jitter:
        image = colour_jitter(image, config.colour_jitter, jitter_seed)
    if config.inception_colour:
        image = inception_colour(image, config.inception_colour, colour_seed)
    if config.pca_lighting:
        image = pca_lighting(image, config.pca_lighting, pca_seed)
    if config.erasing_probability:
        image = random_erasing(image, config.erasing_probability, erasing_seed)
    return image


def _luma(pixels: tf.Tensor) -> tf.Tensor:
    """float32 `(H, W, 3)` -> `(H, W, 1)`."""
    return tf.tensordot(pixels, tf.constant(LUMA), 1)[..., tf.newaxis]


def _blend(pixels: tf.Tensor, degenerate: tf.Tensor, change: tf.Tensor | float) -> tf.Tensor:
    return to_uint8(pixels + change * (pixels - degenerate))
