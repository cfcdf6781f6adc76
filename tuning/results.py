"""`python -m tuning.results SEARCH`: leaderboard, importances, pictures; `--then` goes on."""

import sys

from pipelines.command import command
from tuning.config import ResultsConfig

main = command(ResultsConfig, "tuning.report:report")

if __name__ == "__main__":
    sys.exit(main())
