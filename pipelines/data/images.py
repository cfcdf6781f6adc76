"""One image: from encoded bytes to the pixels that an `InputSpec` asks for.

Evaluation, export and the server call the same `evaluation_image`; the only other way in is
`training_image`, which crops at random. Both give uint8; the model normalises. Of a JPEG, only
the window that the output shows is decoded.
"""

import dataclasses
import math
from collections.abc import Callable

import tensorflow as tf

from keras_zoo import InputSpec
from keras_zoo.quiet import native_messages_held_back
from pipelines.config import AugmentConfig

# The inverse DCT of a JPEG can shrink by these while it decodes.
RATIOS = (1, 2, 4, 8)
# Evaluation leaves at least this much shrinking to the filter, which then hides the decoder's.
FILTERED_SHRINK = 3
KERNELS = {"bilinear": "triangle", "bicubic": "keyscubic"}
KERNEL_RADIUS = {"bilinear": 1, "bicubic": 2}
# A decoded window differs from the whole image's in its outermost columns, where the decoder
# lacks the neighbours that it interpolates colour from.
MARGIN_PX = 2
CROP_ATTEMPTS = 10
# Of the short side, what `multi_scale` looks at.
KEPT_AT_SCALES = (1.0, 0.875, 0.75)


def hush_transposing() -> None:
    """Lets oneDNN report here, unheard, that it leaves the transposing of uint8 to others.

    It does so once in a process, as an error, where an image is resized first.
    """
    with native_messages_held_back():
        tf.transpose(tf.zeros((1, 1), tf.uint8))


def decode(encoded: tf.Tensor, *, channels: int) -> tf.Tensor:
    """Encoded JPEG, PNG, GIF (first frame), BMP or WebP -> uint8 `(H, W, channels)`.

    Grey becomes colour and colour grey as `channels` (1 or 3) asks; an alpha channel is dropped,
    as Pillow's `convert("RGB")` does. JPEG is decoded with the accurate DCT, which is Pillow's.

    Raises:
        tf.errors.InvalidArgumentError: the bytes are none of these formats, or broken.
    """
    image = tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: _decode_jpeg(encoded, channels),
        lambda: _decode_other(encoded, channels),
    )
    return tf.ensure_shape(image, (None, None, channels))


def _decode_jpeg(encoded: tf.Tensor, channels: int) -> tf.Tensor:
    """Decodes to colour first: libjpeg makes no grey of a CMYK file."""
    image = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")
    return with_channels(image, channels)


def _decode_other(encoded: tf.Tensor, channels: int) -> tf.Tensor:
    """Decodes with the file's own channels first: BMP refuses to be asked for others."""
    return with_channels(tf.io.decode_image(encoded, expand_animations=False), channels)


def with_channels(image: tf.Tensor, channels: int) -> tf.Tensor:
    """uint8 `(H, W, 1 | 2 | 3 | 4)`, the last of 2 or 4 being alpha -> `(H, W, channels)`."""
    is_colour = tf.shape(image)[-1] >= 3
    if channels == 3:
        return tf.cond(
            is_colour, lambda: image[..., :3], lambda: tf.image.grayscale_to_rgb(image[..., :1])
        )
    return tf.cond(
        is_colour, lambda: tf.image.rgb_to_grayscale(image[..., :3]), lambda: image[..., :1]
    )


def evaluation_image(encoded: tf.Tensor, spec: InputSpec) -> tf.Tensor:
    """Encoded bytes -> uint8 `(size_px, size_px, C)`: short side resized, central crop.

    What `central_square` gives of the decoded image; of a JPEG only the part that it needs is
    decoded, and a large one at a half, a quarter or an eighth of its size.
    """

    def from_jpeg() -> tf.Tensor:
        full = tf.io.extract_jpeg_shape(encoded)[:2]
        shrink = tf.reduce_min(full) // (spec.resize_px * FILTERED_SHRINK)
        # Without a filter the output takes single pixels, and those that it takes matter.
        shrink = shrink if spec.antialias else tf.ones_like(shrink)
        window = _source_window(full, spec)
        part, ratio = _decode_window(encoded, window, shrink, spec.num_channels)
        return _square(part, window[:2] // ratio * ratio, ratio, full, spec)

    def from_other() -> tf.Tensor:
        return central_square(_decode_other(encoded, spec.num_channels), spec)

    return tf.ensure_shape(tf.cond(tf.io.is_jpeg(encoded), from_jpeg, from_other), spec.shape)


def ten_crops(encoded: tf.Tensor, spec: InputSpec) -> tf.Tensor:
    """Encoded bytes -> uint8 `(10, size_px, size_px, C)`: corners, centre and their mirror images.

    Of the central square of `resize_px` (Krizhevsky et al., NIPS 2012, section 4.1).
    """
    side, whole_px = spec.size_px, spec.resize_px
    square = evaluation_image(
        encoded, dataclasses.replace(spec, size_px=whole_px, crop_fraction=1.0)
    )
    far = whole_px - side
    corners = [(0, 0), (0, far), (far, 0), (far, far), (round(far / 2), round(far / 2))]
    return _and_mirrored(
        tf.stack([square[top : top + side, left : left + side] for top, left in corners])
    )


def flip(encoded: tf.Tensor, spec: InputSpec) -> tf.Tensor:
    """Encoded bytes -> uint8 `(2, size_px, size_px, C)`: the central crop and its mirror image."""
    return _and_mirrored(evaluation_image(encoded, spec)[tf.newaxis])


def multi_scale(encoded: tf.Tensor, spec: InputSpec) -> tf.Tensor:
    """Encoded bytes -> uint8 `(6, size_px, size_px, C)`: three central crops, and mirrored.

    Of the short side they keep 1, 7/8 and 3/4. After Simonyan and Zisserman 2014
    (arXiv:1409.1556), section 4.2, whose network looked at every part of the resized image.
    """
    specs = [dataclasses.replace(spec, crop_fraction=kept) for kept in KEPT_AT_SCALES]
    return _and_mirrored(tf.stack([evaluation_image(encoded, each) for each in specs]))


def _and_mirrored(views: tf.Tensor) -> tf.Tensor:
    """`(V, S, S, C)` -> `(2V, S, S, C)`."""
    return tf.concat([views, tf.reverse(views, axis=[2])], axis=0)


def central_square(image: tf.Tensor, spec: InputSpec) -> tf.Tensor:
    """uint8 or float in [0, 255] `(H, W, C)` -> uint8 `(size_px, size_px, C)`.

    The short side is resized to `resize_px` and the long one in proportion, cut to whole pixels
    as torchvision does; then the central square, its corner rounded to the nearest pixel. Only
    the square is computed.
    """
    full = tf.shape(image)[:2]
    top, left, height, width = tf.unstack(_source_window(full, spec))
    part = image[top : top + height, left : left + width]
    square = _square(part, tf.stack([top, left]), 1, full, spec)
    return tf.ensure_shape(square, spec.shape)


def _square(
    part: tf.Tensor, corner: tf.Tensor, ratio: tf.Tensor | int, full: tf.Tensor, spec: InputSpec
) -> tf.Tensor:
    """The central square, from the part of an image that it needs.

    Args:
        part: uint8 `(H, W, C)`, shrunk by `ratio`.
        corner: int32 `(top, left)` of the part in the whole image, in its pixels.
        ratio: 1, 2, 4 or 8.
        full: int32 `(height, width)` of the whole image.
        spec: what to make of it.
    """
    size, offset = _resized(full, spec)
    scale = tf.cast(size, tf.float32) / tf.cast(full, tf.float32)
    translation = tf.cast(corner, tf.float32) * scale - offset
    scale *= tf.cast(ratio, tf.float32)
    return _resample(part, (spec.size_px, spec.size_px), scale, translation, spec)


def _resized(full: tf.Tensor, spec: InputSpec) -> tuple[tf.Tensor, tf.Tensor]:
    """`(height, width)` of an image -> that of the resized one, and the square's corner in it."""
    full = tf.cast(full, tf.int64)
    size = spec.resize_px * full // tf.reduce_min(full)
    return size, tf.round((tf.cast(size, tf.float32) - spec.size_px) / 2)


def _source_window(full: tf.Tensor, spec: InputSpec) -> tf.Tensor:
    """`(top, left, height, width)` of what the central square is computed from."""
    size, offset = _resized(full, spec)
    shrink = tf.cast(full, tf.float32) / tf.cast(size, tf.float32)
    reach = KERNEL_RADIUS[spec.interpolation] * tf.maximum(shrink, 1) + MARGIN_PX
    begin = tf.maximum(tf.cast(tf.floor(offset * shrink - reach), tf.int32), 0)
    end = tf.cast(tf.math.ceil((offset + spec.size_px) * shrink + reach), tf.int32)
    return tf.concat([begin, tf.minimum(end, full) - begin], axis=0)


def training_image(
    encoded: tf.Tensor,
    spec: InputSpec,
    augment: AugmentConfig,
    seed: tf.Tensor,
    size_px: tf.Tensor | int | None = None,
) -> tf.Tensor:
    """Encoded bytes -> uint8 `(size_px, size_px, C)`: a random crop, mirrored at random.

    Of a JPEG only the crop is decoded, shrunk while it decodes as far as the crop stays at least
    as large as the output.

    Args:
        encoded: one file's bytes.
        spec: the channels, and how to resize.
        augment: the ranges of the random crop, and whether to mirror.
        seed: int32 or int64 `(2,)`; the same seed gives the same pixels.
        size_px: the side of the square to give; the spec's own unless given.
    """
    size_px = spec.size_px if size_px is None else size_px
    crop_seed, flip_seed = tf.unstack(tf.random.split(seed, 2))

    def from_jpeg() -> tf.Tensor:
        window = _random_window(tf.io.extract_jpeg_shape(encoded)[:2], spec, augment, crop_seed)
        shrink = tf.reduce_min(window[2:]) // size_px
        return _decode_window(encoded, window, shrink, spec.num_channels)[0]

    def from_other() -> tf.Tensor:
        image = _decode_other(encoded, spec.num_channels)
        window = _random_window(tf.shape(image)[:2], spec, augment, crop_seed)
        return tf.image.crop_to_bounding_box(image, *tf.unstack(window))

    crop = tf.cond(tf.io.is_jpeg(encoded), from_jpeg, from_other)
    image = resize(crop, size_px, spec)
    if augment.horizontal_flip:
        mirrored = tf.random.stateless_uniform((), flip_seed) < 0.5
        image = tf.cond(mirrored, lambda: tf.reverse(image, axis=[1]), lambda: image)
    side = size_px if isinstance(size_px, int) else None
    return tf.ensure_shape(image, (side, side, spec.num_channels))


def _decode_window(
    encoded: tf.Tensor, window: tf.Tensor, shrink: tf.Tensor, channels: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """The part of a JPEG inside a window, shrunk while it decodes.

    Args:
        encoded: a JPEG's bytes.
        window: int32 `(top, left, height, width)` in the pixels of the whole image.
        shrink: the ratio is the largest of 1, 2, 4, 8 that is not above this.
        channels: 1 or 3.

    Returns:
        uint8 `(height // ratio, width // ratio, channels)`, and the ratio. The window's corner
        is cut to a multiple of the ratio.
    """

    def at(ratio: int) -> Callable[[], tf.Tensor]:
        return lambda: tf.io.decode_and_crop_jpeg(
            encoded, window // ratio, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE"
        )

    index = tf.reduce_sum(tf.cast(shrink >= RATIOS[1:], tf.int32))
    part = tf.switch_case(index, [at(ratio) for ratio in RATIOS])
    return with_channels(part, channels), tf.gather(RATIOS, index)


def _random_window(
    full: tf.Tensor, spec: InputSpec, augment: AugmentConfig, seed: tf.Tensor
) -> tf.Tensor:
    """int32 `(top, left, height, width)` of a random crop of an image `(height, width)`."""
    if augment.scale_jitter_px:
        return scale_jitter_window(full, spec.size_px, augment.scale_jitter_px, seed)
    return inception_window(full, augment.crop_area, augment.crop_aspect, seed)


def inception_window(
    full: tf.Tensor, area: tuple[float, float], aspect: tuple[float, float], seed: tf.Tensor
) -> tf.Tensor:
    """A crop of random area and aspect ratio (Szegedy et al. 2014, arXiv:1409.4842).

    Drawn as torchvision draws it. (TensorFlow's `sample_distorted_bounding_box` draws the height
    uniformly, and so prefers small areas.)

    Args:
        full: int32 `(height, width)` of the image.
        area: the crop's share of the image is uniform between these.
        aspect: the logarithm of width divided by height is uniform between those of these.
        seed: int32 or int64 `(2,)`.

    Returns:
        int32 `(top, left, height, width)`: the first of ten draws that fits into the image, else
        the largest central one of an aspect ratio between those given.
    """
    low, high = aspect
    draws = tf.random.stateless_uniform((4, CROP_ATTEMPTS), seed)
    height, width = tf.unstack(tf.cast(full, tf.float32))
    areas = height * width * (area[0] + (area[1] - area[0]) * draws[0])
    aspects = low * tf.exp(math.log(high / low) * draws[1])
    sizes = tf.round(tf.sqrt(tf.stack([areas / aspects, areas * aspects], axis=1)))
    # The last resort fits always, so there is a first that fits.
    largest = tf.stack([tf.minimum(height, width / low), tf.minimum(width, height * high)])
    sizes = tf.concat([tf.maximum(sizes, 1), tf.floor(largest)[tf.newaxis]], axis=0)
    fits = tf.reduce_all(sizes <= tf.stack([height, width]), axis=1)
    first = tf.argmax(fits, output_type=tf.int32)
    size = tf.cast(sizes[first], tf.int32)
    at = tf.concat([draws[2:], tf.fill((2, 1), 0.5)], axis=1)[:, first]
    corner = tf.cast(at * tf.cast(full - size + 1, tf.float32), tf.int32)
    return tf.concat([corner, size], axis=0)


def scale_jitter_window(
    full: tf.Tensor, size_px: int, short_px: tuple[int, int], seed: tf.Tensor
) -> tf.Tensor:
    """VGG's scale jitter (Simonyan and Zisserman 2014, arXiv:1409.1556), as a window.

    The short side is resized to a whole number of pixels uniform in `short_px`, both ends
    included, and a square of `size_px` cut at random: the same pixels as the square window of
    the original that this returns.

    Args:
        full: int32 `(height, width)` of the image.
        size_px: the side of the square.
        short_px: smallest and largest short side, neither below `size_px`.
        seed: int32 or int64 `(2,)`.

    Returns:
        int32 `(top, left, height, width)`.
    """
    scale_seed, corner_seed = tf.unstack(tf.random.split(seed, 2))
    low, high = short_px
    short = tf.random.stateless_uniform((), scale_seed, low, high + 1, tf.int32)
    side = tf.maximum(size_px * tf.reduce_min(full) // short, 1)
    at = tf.random.stateless_uniform((2,), corner_seed)
    corner = tf.cast(at * tf.cast(full - side + 1, tf.float32), tf.int32)
    return tf.concat([corner, [side, side]], axis=0)


def resize(image: tf.Tensor, size_px: tf.Tensor | int, spec: InputSpec) -> tf.Tensor:
    """uint8 `(H, W, C)` -> uint8 `(size_px, size_px, C)` with the spec's own filter."""
    size = tf.stack([size_px, size_px])
    scale = tf.cast(size, tf.float32) / tf.cast(tf.shape(image)[:2], tf.float32)
    return _resample(image, size, scale, tf.zeros(2), spec)


def _resample(
    image: tf.Tensor, size: tf.Tensor, scale: tf.Tensor, translation: tf.Tensor, spec: InputSpec
) -> tf.Tensor:
    """`(H, W, C)` in [0, 255] -> uint8 `(*size, C)`, the width first, rounded, as Pillow does it.

    A point p of the image lands at `p * scale + translation`; pixels are unit squares.
    """
    size, scale, translation = (tf.unstack(pair) for pair in (size, scale, translation))
    height, width, channels = tf.unstack(tf.shape(image))
    rows = tf.reshape(image, (height, width * channels))
    columns = tf.reshape(tf.transpose(rows), (width, channels * height))
    columns = _resample_rows(columns, size[1], scale[1], translation[1], spec)
    rows = tf.transpose(tf.reshape(columns, (size[1] * channels, height)))
    rows = _resample_rows(rows, size[0], scale[0], translation[0], spec)
    return tf.reshape(rows, (*size, channels))


def _resample_rows(
    rows: tf.Tensor, size: tf.Tensor, scale: tf.Tensor, translation: tf.Tensor, spec: InputSpec
) -> tf.Tensor:
    """`(R, N)` -> uint8 `(size, N)`.

    Each row is handed over as one pixel of N channels: TensorFlow's kernel takes channels with
    vector instructions and pixels one at a time, and so is three times as fast.
    """
    number, length = tf.unstack(tf.shape(rows))
    resampled = tf.raw_ops.ScaleAndTranslate(
        images=tf.reshape(rows, (1, 1, number, length)),
        size=tf.stack([1, size]),
        scale=tf.stack([1.0, scale]),
        translation=tf.stack([0.0, translation]),
        kernel_type=KERNELS[spec.interpolation],
        antialias=spec.antialias,
    )
    return to_uint8(tf.reshape(resampled, (size, length)))


def to_uint8(pixels: tf.Tensor) -> tf.Tensor:
    """float32 -> uint8, clipped to [0, 255] and rounded, halves up, as Pillow does."""
    return tf.cast(tf.clip_by_value(pixels, 0, 255) + 0.5, tf.uint8)


# By its name, what is seen of an image: uint8 `(S, S, C)`, or several such, `(V, S, S, C)`.
VIEWS: dict[str, Callable[[tf.Tensor, InputSpec], tf.Tensor]] = {
    "centre": evaluation_image,
    "flip": flip,
    "ten_crops": ten_crops,
    "multi_scale": multi_scale,
}
