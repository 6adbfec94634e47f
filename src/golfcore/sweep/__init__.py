"""Run many variants of a recipe: a queue that survives its process, devices, early stopping, search."""
