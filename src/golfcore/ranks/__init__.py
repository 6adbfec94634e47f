"""The ranks (processes) of a run: how they meet, their collectives, and how a rank that died or hangs is found."""
