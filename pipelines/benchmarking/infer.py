"""How fast an exported network answers: uint8 pixels in, probabilities out, one call at a time.

What is measured is what is served: the SavedModel's `classify`, or another engine over the same
graph, with batch normalisation folded. The images are noise, which a network takes as long for as
for photographs; decoding and resizing are not in it.
"""

from functools import partial
from pathlib import Path

import numpy as np
import tensorflow as tf

from pipelines.benchmarking import exported
from pipelines.benchmarking.ceiling import ceiling_gflops
from pipelines.benchmarking.memory import forget_peak, peak_mib
from pipelines.benchmarking.results import Results
from pipelines.benchmarking.rounds import ROUNDS, Round, Subject, in_new_process, measured, timed
from pipelines.config import InferBenchmarkConfig
from pipelines.exporting.engines import open_engine


def infer(configs: list[InferBenchmarkConfig]) -> Results:
    """Measures the networks, exported for the time being, and adds their rows.

    Raises:
        BadInput: a file with other columns, or what writes or runs the engine is not installed.
        Failed: a network cannot be written, or a process was killed.
    """
    measure = partial(in_new_process, calls)
    return measured(Subject("infer", exported.write, measure), configs)


def calls(config: InferBenchmarkConfig, models: Path) -> Round:
    """A round: calls for a part of the time."""
    shape = (config.batch_size, *config.input.shape)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    # TensorFlow starts its threads with its first operation.
    tf.zeros(())
    before_mib = forget_peak()
    engine = open_engine(exported.version_folder(config, models), config.engine)
    calls_s = timed(lambda: engine(pixels), config.seconds / ROUNDS)
    # The matrices, too, would count as memory, and leave some behind for the network to use.
    memory_mib = peak_mib() - before_mib
    return Round(
        images_per_s=len(calls_s) * config.batch_size / sum(calls_s),
        calls_s=calls_s,
        memory_mib=memory_mib,
        ceiling_gflops=ceiling_gflops(config.precision),
    )
