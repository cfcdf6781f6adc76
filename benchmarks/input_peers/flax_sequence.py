"""The sequence of ops of flax's ImageNet example: crop while decoding, bicubic, normalise."""

import tensorflow as tf
import tensorflow_datasets as tfds
from measure import BATCH, MEAN, SIZE, STD, prepared, serve


def example(record):
    encoded = record["image"]
    begin, size, _ = tf.image.sample_distorted_bounding_box(
        tf.io.extract_jpeg_shape(encoded),
        bounding_boxes=tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
        min_object_covered=0.1,
        aspect_ratio_range=(3 / 4, 4 / 3),
        area_range=(0.08, 1.0),
        max_attempts=10,
        use_image_if_no_bounding_boxes=True,
    )
    window = tf.stack([begin[0], begin[1], size[0], size[1]])
    image = tf.io.decode_and_crop_jpeg(encoded, window, channels=3)
    image = tf.image.resize([image], (SIZE, SIZE), method="bicubic")[0]
    image = tf.image.random_flip_left_right(tf.reshape(image, (SIZE, SIZE, 3)))
    image = (image - tf.constant(MEAN)) / tf.constant(STD)
    return tf.image.convert_image_dtype(image, tf.float32), record["label"]


records = tfds.builder_from_directory(prepared()).as_dataset(
    "train", decoders={"image": tfds.decode.SkipDecoding()}
)
serve(
    records.cache()
    .repeat()
    .shuffle(512)
    .map(example, num_parallel_calls=tf.data.AUTOTUNE)
    .batch(BATCH, drop_remainder=True)
    .prefetch(10),
    lambda crop: tf.image.resize(crop, (SIZE, SIZE), method="bicubic").numpy(),
)
