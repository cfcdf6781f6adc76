"""`python -m pipelines.inspect DIR`: a prepared data set on one page."""

import sys

from pipelines.command import command
from pipelines.config import InspectConfig

main = command(InspectConfig, "pipelines.data.inspection:inspect")

if __name__ == "__main__":
    sys.exit(main())
