"""Evaluate models: the scorer, the text that it holds, the clock, and the probes for look-ahead."""
