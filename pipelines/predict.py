"""`python -m pipelines.predict MODEL IMAGES...`: the most probable classes of images."""

import sys

from pipelines.command import command
from pipelines.config import PredictConfig

main = command(PredictConfig, "pipelines.evaluation.predict:predict")

if __name__ == "__main__":
    sys.exit(main())
