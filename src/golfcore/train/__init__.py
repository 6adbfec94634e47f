"""Training: the loop, the ranks, checkpoints, the run's log."""
