"""The sequence of ops of TF Model Garden's ResNet: crop while decoding, flip, bilinear, float."""

import tensorflow as tf
import tensorflow_datasets as tfds
from measure import BATCH, MEAN, SIZE, STD, prepared, serve


def example(record):
    encoded = record["image"]
    begin, size, _ = tf.image.sample_distorted_bounding_box(
        tf.image.extract_jpeg_shape(encoded),
        bounding_boxes=tf.zeros((1, 0, 4)),
        min_object_covered=0.1,
        aspect_ratio_range=(0.75, 1.33),
        area_range=(0.08, 1.0),
        max_attempts=10,
        use_image_if_no_bounding_boxes=True,
    )
    window = tf.stack([begin[0], begin[1], size[0], size[1]])
    image = tf.image.random_flip_left_right(
        tf.image.decode_and_crop_jpeg(encoded, window, channels=3)
    )
    image = tf.image.resize(image, (SIZE, SIZE), method="bilinear")
    image = (tf.cast(image, tf.float32) - tf.constant(MEAN)) / tf.constant(STD)
    return tf.reshape(image, (SIZE, SIZE, 3)), tf.one_hot(record["label"], 1000)


records = tfds.builder_from_directory(prepared()).as_dataset(
    "train", decoders={"image": tfds.decode.SkipDecoding()}
)
options = tf.data.Options()
options.deterministic = False
serve(
    records.shuffle(512)
    .repeat()
    .map(example, num_parallel_calls=tf.data.AUTOTUNE)
    .batch(BATCH, drop_remainder=True)
    .prefetch(tf.data.AUTOTUNE)
    .with_options(options),
    lambda crop: tf.image.resize(crop, (SIZE, SIZE), method="bilinear").numpy(),
)
