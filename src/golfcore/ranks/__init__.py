"""The ranks of a run: how they meet, the collectives they share, and how a rank that died or hangs is found."""
