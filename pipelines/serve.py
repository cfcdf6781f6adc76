"""`python -m pipelines.serve saved_models`: SavedModels over HTTP."""

import sys

from pipelines.command import command
from pipelines.config import ServeConfig

main = command(ServeConfig, "pipelines.serving.server:serve")

if __name__ == "__main__":
    sys.exit(main())
