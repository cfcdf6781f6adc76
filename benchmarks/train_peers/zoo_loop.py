"""This project's training step on a batch in memory."""

import numpy as np
import tensorflow as tf
from measure import CLASSES, batch, network, serve

from pipelines.command import parse
from pipelines.config import TrainConfig
from pipelines.training.state import State
from pipelines.training.step import TrainingStep

images, labels = batch()
arguments = [
    "none",
    f"--network={network()}",
    f"--global_batch_size={len(images)}",
    f"--input.size_px={images.shape[1]}",
]
config = parse(TrainConfig, arguments)
state = State(config, CLASSES, None, steps_per_epoch=1000)
step = TrainingStep(state, config, {images.shape[1]: state.model})
fed = tf.constant(images), tf.constant(np.eye(CLASSES, dtype=np.float32)[labels])
serve(lambda steps: [step(*fed, stop=False) for _ in range(steps)])
