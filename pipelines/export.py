"""`python -m pipelines.export RUN --out saved_models/NAME`: a run -> a SavedModel."""

import sys

from pipelines.command import command
from pipelines.config import ExportConfig

main = command(ExportConfig, "pipelines.serving.saved_model:export")

if __name__ == "__main__":
    sys.exit(main())
