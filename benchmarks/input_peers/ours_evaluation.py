"""This project's evaluation stream, over and over."""

import itertools

from measure import BATCH, prepared, serve

from keras_zoo import InputSpec
from pipelines.data.streams import evaluation_stream, open_dataset

stream = evaluation_stream(open_dataset(prepared()), "train", InputSpec(), BATCH)
serve(itertools.chain.from_iterable(itertools.repeat(stream)), None)
