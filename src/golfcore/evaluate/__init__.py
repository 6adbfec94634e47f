"""Evaluation: the scorer, the text it holds, and the probes."""
