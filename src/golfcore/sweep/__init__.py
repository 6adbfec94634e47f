"""Many runs of one recipe: a queue that survives its process, devices, early stopping, search."""
