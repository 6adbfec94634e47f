"""Training: the loop, its clock and its records."""
