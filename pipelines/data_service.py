"""`python -m pipelines.data_service`: a tf.data service that prepares training images."""

import sys

from pipelines.command import command
from pipelines.config import DataServiceConfig

main = command(DataServiceConfig, "pipelines.data.service:serve_data")

if __name__ == "__main__":
    sys.exit(main())
