"""`python -m pipelines.export RUN --out saved_models/NAME`: a trained network -> a SavedModel."""

import sys

from pipelines.command import command
from pipelines.config import ExportConfig

main = command(ExportConfig, "pipelines.exporting.export:export")

if __name__ == "__main__":
    sys.exit(main())
