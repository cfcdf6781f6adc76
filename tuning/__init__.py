"""keras-tuner searches over the training config; a trial is a run of `pipelines.train`."""
