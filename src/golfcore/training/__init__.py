"""Training on the ranks at hand: the trainer, its checkpoints, and the log of a run."""
