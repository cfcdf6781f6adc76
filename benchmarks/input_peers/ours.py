"""This project's training stream; an argument more is a setting of `TrainConfig`."""

import sys

from measure import BATCH, SIZE, prepared, serve

from keras_zoo import InputSpec
from pipelines.command import parse
from pipelines.config import TrainConfig
from pipelines.data.images import resize
from pipelines.data.streams import open_dataset, training_stream

config = parse(
    TrainConfig,
    [
        str(prepared()),
        f"--global_batch_size={BATCH}",
        "--epochs=100000",
        "--shuffle_buffer=512",
        *sys.argv[5:],
    ],
)
serve(
    training_stream(open_dataset(config.data), config, first_epoch=0),
    lambda crop: resize(crop, SIZE, InputSpec(SIZE)).numpy(),
)
