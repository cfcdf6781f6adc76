"""`python -m pipelines.prepare SOURCE --out DIR`: images -> a TFDS data set on disk."""

import sys

from pipelines.command import command
from pipelines.config import PrepareConfig

main = command(PrepareConfig, "pipelines.data.preparation:prepare")

if __name__ == "__main__":
    sys.exit(main())
