"""`python -m tuning.search SPACE --search DIR --train FILE`: a keras-tuner search."""

import sys

from pipelines.command import command
from tuning.config import SearchConfig

main = command(SearchConfig, "tuning.trials:search")

if __name__ == "__main__":
    sys.exit(main())
