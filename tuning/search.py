"""`python -m tuning.search DATA --recipe NAME --space NAME`: a keras-tuner search."""

import sys

from pipelines.command import command
from tuning.config import SearchConfig

main = command(SearchConfig, "tuning.study:search")

if __name__ == "__main__":
    sys.exit(main())
