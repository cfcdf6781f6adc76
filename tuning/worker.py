"""`python -m tuning.worker SEARCH`: runs trials of a search that a chief runs."""

import sys

from pipelines.command import command
from tuning.config import WorkerConfig

main = command(WorkerConfig, "tuning.spread:join")

if __name__ == "__main__":
    sys.exit(main())
