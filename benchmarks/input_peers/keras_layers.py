"""keras.utils.image_dataset_from_directory, then Keras's preprocessing layers on each batch."""

import itertools

import keras
from measure import BATCH, SIZE, folder, serve

layers = keras.Sequential(
    [keras.layers.RandomCrop(SIZE, SIZE), keras.layers.RandomFlip("horizontal")]
)
images = keras.utils.image_dataset_from_directory(
    folder(), batch_size=BATCH, image_size=(256, 256), crop_to_aspect_ratio=True, verbose=False
)
batches = images.map(lambda x, y: (layers(x, training=True), y)).prefetch(2)
serve(itertools.chain.from_iterable(itertools.repeat(batches)), None)
