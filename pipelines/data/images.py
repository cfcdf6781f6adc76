"""One image: from encoded bytes to the pixels that an `InputSpec` asks for.

Evaluation, export and the server call the same `evaluation_image`; the only other way in is
`training_image`, which crops at random. Both give uint8; the model normalises.
"""

import tensorflow as tf

from keras_zoo import InputSpec
from pipelines.config import AugmentConfig

# TensorFlow's names of the filters, by the names that an `InputSpec` uses.
KERNELS = {"bilinear": "triangle", "bicubic": "keyscubic"}


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
    """Encoded bytes -> uint8 `(size_px, size_px, C)`: short side resized, central crop."""
    return central_square(decode(encoded, channels=spec.num_channels), spec)


def central_square(image: tf.Tensor, spec: InputSpec) -> tf.Tensor:
    """uint8 or float in [0, 255] `(H, W, C)` -> uint8 `(size_px, size_px, C)`.

    The short side is resized to `resize_px` and the long one in proportion, cut to whole pixels
    as torchvision does; then the central square, its corner rounded to the nearest pixel.
    """
    size = tf.shape(image)[:2]
    resized = spec.resize_px * size // tf.reduce_min(size)
    corner = tf.round(tf.cast(resized - spec.size_px, tf.float32) / 2)
    # Only the square is computed: a sliver of 1x5000 pixels must not become gigabytes.
    square = tf.raw_ops.ScaleAndTranslate(
        images=tf.cast(image, tf.float32)[tf.newaxis],
        size=(spec.size_px, spec.size_px),
        scale=tf.cast(resized / size, tf.float32),
        translation=-corner,
        kernel_type=KERNELS[spec.interpolation],
        antialias=spec.antialias,
    )
    return tf.ensure_shape(_to_uint8(square[0]), spec.shape)


def training_image(
    encoded: tf.Tensor, spec: InputSpec, augment: AugmentConfig, seed: tf.Tensor
) -> tf.Tensor:
    """Encoded bytes -> uint8 `(size_px, size_px, C)`: a random crop, mirrored at random.

    Args:
        encoded: one file's bytes.
        spec: the size to resize to, and how.
        augment: the ranges of the random crop, and whether to mirror.
        seed: int32 or int64 `(2,)`; the same seed gives the same pixels.
    """
    crop_seed, flip_seed = tf.unstack(tf.random.split(seed, 2))
    image = _resize(
        _random_crop(encoded, spec, augment, crop_seed), spec.size_px, spec.size_px, spec
    )
    if augment.horizontal_flip:
        image = tf.image.stateless_random_flip_left_right(image, flip_seed)
    return tf.ensure_shape(image, spec.shape)


def _random_crop(
    encoded: tf.Tensor, spec: InputSpec, augment: AugmentConfig, seed: tf.Tensor
) -> tf.Tensor:
    """The Inception crop; of a JPEG, only the part inside the crop is decoded."""

    def window(shape: tf.Tensor) -> tf.Tensor:
        """`(top, left, height, width)` of a random crop of an image of this shape."""
        begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
            shape,
            bounding_boxes=tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
            seed=seed,
            min_object_covered=0.0,
            aspect_ratio_range=augment.crop_aspect,
            area_range=augment.crop_area,
            max_attempts=10,
            use_image_if_no_bounding_boxes=True,
        )
        return tf.concat([begin[:2], size[:2]], axis=0)

    def from_jpeg() -> tf.Tensor:
        crop = tf.io.decode_and_crop_jpeg(
            encoded,
            window(tf.io.extract_jpeg_shape(encoded)),
            channels=3,
            dct_method="INTEGER_ACCURATE",
        )
        return with_channels(crop, spec.num_channels)

    def from_other() -> tf.Tensor:
        image = _decode_other(encoded, spec.num_channels)
        return tf.image.crop_to_bounding_box(image, *tf.unstack(window(tf.shape(image))))

    return tf.cond(tf.io.is_jpeg(encoded), from_jpeg, from_other)


def _resize(
    image: tf.Tensor, height: tf.Tensor | int, width: tf.Tensor | int, spec: InputSpec
) -> tf.Tensor:
    """`(H, W, C)` in [0, 255] -> uint8 `(height, width, C)`, rounded."""
    resized = tf.image.resize(
        image, (height, width), method=spec.interpolation, antialias=spec.antialias
    )
    return _to_uint8(resized)


def _to_uint8(image: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)
