"""Summarize a run: its score, bytes, time, and the four verdicts without which a score does not count."""

from __future__ import annotations

from typing import Any

from golfcore.report.load import RunData, number

PASS, FAIL, UNKNOWN = "pass", "fail", "unknown"


def summarize(run: RunData) -> dict[str, Any]:
    """Return a run as one dict of JSON values: run, name, state, score, bytes, phases, verdicts, problems.

    ``state`` is ``scored``, ``unscored`` (trained, no score yet), ``interrupted`` (a phase did not end) or ``empty``.
    """
    cap = number(_track(run, "cap_bytes"))
    used = run.artifact_bytes
    return {
        "run": str(run.run_dir),
        "name": run.name,
        "state": _state(run),
        "score": {key: number(run.score.get(key)) for key in ("val_bpb", "val_loss", "tokens", "bytes", "eval_s")},
        "bytes": {
            "used": used,
            "cap": None if cap is None else int(cap),
            "free": None if used is None or cap is None else int(cap) - used,
        },
        "clock": training_clock(run),
        "phases": run.ledger,
        "verdicts": [fits_the_cap(run), within_time(run), code_matches(run), from_packed_bytes(run)],
        "problems": list(run.problems),
    }


def _track(run: RunData, key: str) -> Any:
    track = run.config.get("track")
    return track.get(key) if isinstance(track, dict) else None


def _state(run: RunData) -> str:
    if number(run.score.get("val_bpb")) is not None:
        return "scored"
    if any(not phase["complete"] for phase in run.ledger):
        return "interrupted"
    return "unscored" if run.metrics or run.artifact_bytes else "empty"


def training_clock(run: RunData) -> dict[str, float | None]:
    """Return the seconds trained and their budget (None: no limit), from the ledger or else from the metrics."""
    budget = number(_track(run, "train_s")) or None
    for phase in run.ledger:
        if phase["phase"] == "train" and phase["complete"]:
            return {"seconds": phase["seconds"], "budget_s": phase["budget_s"] or budget}
    clocks = [clock for row in run.metrics if (clock := number(row.get("train_s"))) is not None]
    return {"seconds": clocks[-1] if clocks else None, "budget_s": budget}


def _verdict(key: str, state: str, label: str, detail: str) -> dict[str, str]:
    return {"key": key, "state": state, "label": label, "detail": detail}


def fits_the_cap(run: RunData) -> dict[str, str]:
    """Judge whether the packed file is within the track's cap."""
    cap, used = number(_track(run, "cap_bytes")), run.artifact_bytes
    if used is None or cap is None:
        why = "there is no model.golf yet" if used is None else "the config names no cap"
        return _verdict("cap", UNKNOWN, "Size not known", why)
    if used > cap:
        return _verdict("cap", FAIL, "Over the cap", f"by {used - cap:,.0f} bytes")
    return _verdict("cap", PASS, "Fits the cap", f"{cap - used:,.0f} bytes free")


def within_time(run: RunData) -> dict[str, str]:
    """Judge whether every phase kept its budget; the training phase must exist and have ended."""
    budgeted = [phase for phase in run.ledger if phase["budget_s"]]
    for phase in budgeted:
        if phase["seconds"] > phase["budget_s"]:
            return _verdict(
                "time", FAIL, "Over time", f"{phase['phase']}: {phase['seconds']:,.1f} of {phase['budget_s']:,.0f} s"
            )
    if not any(phase["phase"] == "train" and phase["complete"] for phase in run.ledger):
        return _verdict("time", UNKNOWN, "Time not known", "the training phase has not ended")
    if not budgeted:
        return _verdict("time", PASS, "Within time", "this run has no limit")
    least = min(budgeted, key=lambda phase: phase["budget_s"] - phase["seconds"])
    left = least["budget_s"] - least["seconds"]
    return _verdict("time", PASS, "Within time", f"{least['phase']} had {left:,.1f} s left")


def code_matches(run: RunData) -> dict[str, str]:
    """Judge whether the code in the packed file is the code that scored it."""
    matches = run.score.get("code_matches")
    if matches is True:
        return _verdict("code", PASS, "Code matches", "the packed code is what ran")
    if matches is False:
        return _verdict("code", FAIL, "Code differs", "the packed code is not what ran")
    return _verdict("code", UNKNOWN, "Code not compared", "no score yet" if not run.score else "the score does not say")


def from_packed_bytes(run: RunData) -> dict[str, str]:
    """Judge whether the score belongs to the packed file in the folder, byte for byte."""
    scored = run.score.get("artifact_sha256")
    if not isinstance(scored, str) or not scored:
        return _verdict("packed", UNKNOWN, "Packed bytes not scored", "no score yet" if not run.score else "no hash")
    if not run.artifact_sha256:
        return _verdict("packed", UNKNOWN, "Packed bytes not here", "model.golf is not in the folder")
    if scored != run.artifact_sha256:
        return _verdict("packed", FAIL, "Scored other bytes", "model.golf has changed since")
    return _verdict("packed", PASS, "Scored as packed", f"sha256 {scored[:12]}")
