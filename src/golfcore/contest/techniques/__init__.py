"""Hypotheses of invalid techniques, from an abstract run and from what helpers in other languages do."""
