"""keras-tuner searches over the training config; a trial is a run of `pipelines.train`."""

import os

# Read as gRPC loads; what it would say of a chief that is gone, this package says in a line.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
