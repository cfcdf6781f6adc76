"""Evaluation on two replicas, each a logical device of the CPU; run by test_replicas.py.

Prints the numbers of the images that each case saw, a case being (images, batch size, workers),
and what evaluation makes of a run for several batch sizes.
"""

import dataclasses
import functools
import itertools
import json
import sys
from pathlib import Path

import tensorflow as tf

from keras_zoo import InputSpec
from pipelines.config import EvaluateConfig
from pipelines.data.streams import evaluation_stream, open_dataset
from pipelines.evaluation.evaluate import evaluate

RUN_BATCH_SIZES = (7, 64)
SPEC = InputSpec(16, crop_fraction=1.0)
IMAGES, BATCH_SIZES, WORKERS = (1, 7, 255, 256, 257), (1, 3, 64), (1, 2)


def images_seen(strategy, dataset, batch_size):
    """`[[images, batch size, workers, [number of an image, ...]], ...]`.

    All cases are one stream: to distribute one costs more than its steps do.
    """
    cases = list(itertools.product(IMAGES, [batch_size], WORKERS))

    def tagged(index, worker):
        n, _, num_workers = cases[index]
        stream = evaluation_stream(
            dataset,
            f"validation[:{n}]",
            SPEC,
            batch_size,
            worker=worker,
            num_workers=num_workers,
        )
        return stream.map(lambda images, _, mask: (images, mask, tf.fill([batch_size], index)))

    streams = [
        tagged(index, worker) for index, case in enumerate(cases) for worker in range(case[-1])
    ]
    stream = functools.reduce(tf.data.Dataset.concatenate, streams)
    seen = [[] for _ in cases]
    for batch in strategy.experimental_distribute_dataset(stream):
        for replica in zip(*map(strategy.experimental_local_results, batch), strict=True):
            images, mask, tags = (part.numpy() for part in replica)
            colours = images[mask][:, 0, 0].astype(int)
            for tag, number in zip(tags[mask], colours[:, 0] + 256 * colours[:, 1], strict=True):
                seen[tag].append(int(number))
    return [[*case, numbers] for case, numbers in zip(cases, seen, strict=True)]


def evaluated(run):
    """What a run is measured to in batches that two replicas share unevenly."""
    measured = (evaluate(EvaluateConfig(run, batch_size=size)) for size in RUN_BATCH_SIZES)
    return [dataclasses.asdict(each) for each in measured]


def main(data, run):
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    dataset = open_dataset(Path(data))
    seen = [case for size in BATCH_SIZES for case in images_seen(strategy, dataset, size)]
    print(json.dumps([seen, evaluated(run)]))


if __name__ == "__main__":
    main(*sys.argv[1:])
