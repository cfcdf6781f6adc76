"""`python -m pipelines.evaluate RUN`: top-1 and top-5 over every image."""

import sys

from pipelines.command import command
from pipelines.config import EvaluateConfig

main = command(EvaluateConfig, "pipelines.evaluation.accuracy:evaluate")

if __name__ == "__main__":
    sys.exit(main())
