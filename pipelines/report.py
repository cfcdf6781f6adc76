"""`python -m pipelines.report RUNS...`: runs side by side, on one page and in tables."""

import sys

from pipelines.command import command
from pipelines.config import ReportConfig

main = command(ReportConfig, "pipelines.reporting.report:report")

if __name__ == "__main__":
    sys.exit(main())
