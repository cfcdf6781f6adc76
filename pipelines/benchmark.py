"""`python -m pipelines.benchmark SUBJECT DATA`: how fast a part is, and what holds it back."""

import sys

from pipelines.command import Subcommand, subcommands
from pipelines.config import InputBenchmarkConfig

main = subcommands(
    {
        "input": Subcommand(
            InputBenchmarkConfig,
            "pipelines.data.doctor:diagnose",
            "what limits the stream of training images, and the setting to change",
        ),
    }
)

if __name__ == "__main__":
    sys.exit(main())
