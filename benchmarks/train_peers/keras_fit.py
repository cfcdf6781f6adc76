"""Keras's `fit` on the same network and batch, with Keras's own optimizer of the same kind."""

import keras
import numpy as np
import tensorflow as tf
from measure import CLASSES, batch, network, serve

from pipelines.command import parse
from pipelines.config import TrainConfig
from pipelines.training.model import image_classifier

images, labels = batch()
arguments = ["none", f"--network={network()}", f"--input.size_px={images.shape[1]}"]
model = image_classifier(network(), parse(TrainConfig, arguments).input, CLASSES)
model.compile(
    keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True, weight_decay=5e-5),
    keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
    metrics=[keras.metrics.CategoricalAccuracy()],
    jit_compile=False,
)
fed = tf.data.Dataset.from_tensors((images, np.eye(CLASSES, dtype=np.float32)[labels])).repeat()
serve(lambda steps: model.fit(fed, steps_per_epoch=steps, verbose=0))
