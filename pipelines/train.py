"""`python -m pipelines.train DATA --network NAME`: a prepared data set -> a run."""

import sys

from pipelines.command import command
from pipelines.config import TrainConfig

main = command(TrainConfig, "pipelines.training.train:train")

if __name__ == "__main__":
    sys.exit(main())
