"""`python -m pipelines.train DATA --network NAME`: a prepared data set -> a run.

With `--dry-run`: what the run would take; nothing is written.
"""

import sys

from pipelines.command import command
from pipelines.config import TrainConfig

main = command(
    TrainConfig,
    "pipelines.training.train:train",
    dry_run="pipelines.training.dry_run:dry_run",
)

if __name__ == "__main__":
    sys.exit(main())
