"""Summarize the results of a sweep so far: variants with the mean of their seeds, best first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from golfcore.stats import mean_interval
from golfcore.sweep.queue import Entry


def variants(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Return one row per variant, best mean first, variants without a score last.

    Keys: variant, sets, runs, done, running, stopped, failed, seeds, scores, mean, half_width (of the 95 % interval;
    None below two seeds), best, bytes, notes.
    """
    rows = []
    for name in dict.fromkeys(entry.job.variant for entry in entries):
        own = [entry for entry in entries if entry.job.variant == name]
        done = [entry for entry in own if entry.state == "done" and entry.result]
        scores = [float((entry.result or {})["val_bpb"]) for entry in done]
        mean, half = mean_interval(scores) if scores else (None, None)
        sizes = [size for entry in done if (size := (entry.result or {}).get("artifact_bytes"))]
        rows.append(
            {
                "variant": name, "sets": list(own[0].job.sets), "runs": len(own),
                **{state: count for state, count in totals(own).items() if state != "waiting"},
                "seeds": [entry.job.seed for entry in done], "scores": scores, "mean": mean, "half_width": half,
                "best": min(scores, default=None), "bytes": max(sizes, default=None),
                "notes": [f"seed {entry.job.seed}: {entry.note}" for entry in own if entry.note],
            }
        )  # fmt: skip
    return sorted(rows, key=lambda row: (row["mean"] is None, row["mean"] or 0.0))


def totals(entries: Sequence[Entry]) -> dict[str, int]:
    """Count the jobs in each state."""
    states = ("waiting", "running", "done", "stopped", "failed")
    return {state: sum(entry.state == state for entry in entries) for state in states}
