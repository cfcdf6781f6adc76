"""`python -m pipelines.evaluate MODEL`: how well a trained network does on every image."""

import sys

from pipelines.command import command
from pipelines.config import EvaluateConfig

main = command(EvaluateConfig, "pipelines.evaluation.evaluate:evaluate")

if __name__ == "__main__":
    sys.exit(main())
