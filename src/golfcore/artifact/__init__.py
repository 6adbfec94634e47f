"""Packed models: which tensors, manifest and code a file holds, and what can be read out of it."""
