"""`python -m pipelines --config FILE`: prepare, train, evaluate and export in one go."""

import sys

from pipelines.command import command
from pipelines.config import WorkflowConfig

main = command(WorkflowConfig, "pipelines.workflow:run")

if __name__ == "__main__":
    sys.exit(main())
