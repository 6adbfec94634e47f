"""Train a model: the training loop, its checkpoints, and the log of a run."""
