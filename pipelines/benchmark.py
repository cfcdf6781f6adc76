"""`python -m pipelines.benchmark SUBJECT NETWORK...`: how fast a part is, as rows of a file."""

import sys

from pipelines.command import Subcommand, subcommands
from pipelines.config import (
    InferBenchmarkConfig,
    InputBenchmarkConfig,
    ServeBenchmarkConfig,
    TrainBenchmarkConfig,
)

main = subcommands(
    {
        "train": Subcommand(
            TrainBenchmarkConfig,
            "pipelines.benchmarking.train:train",
            "the training step",
        ),
        "infer": Subcommand(
            InferBenchmarkConfig,
            "pipelines.benchmarking.infer:infer",
            "the exported network",
        ),
        "input": Subcommand(
            InputBenchmarkConfig,
            "pipelines.benchmarking.input:diagnose_each",
            "what limits the stream of training images, and the setting to change",
        ),
        "serve": Subcommand(
            ServeBenchmarkConfig,
            "pipelines.benchmarking.serve:serve",
            "the server under clients",
        ),
    }
)

if __name__ == "__main__":
    sys.exit(main())
