"""The training loop and what it leaves behind: the run's folder, checkpoints, logs."""
