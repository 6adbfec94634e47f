"""Check the bytes that an entry ships against the cap, with code packed and expanded."""

from __future__ import annotations

from golfcore.contest.checks.context import Context
from golfcore.contest.folder import NATIVE, PYTHON, SHELL

CLOSE = 10_000  # bytes under the cap within which another seed may be over it


def check_sizes(context: Context, expanded: dict[str, int]) -> None:
    """Check sizes; ``expanded`` has the size of each script after unpacking."""
    cap = context.rules.limits.cap_bytes
    claimed = context.submission.number("bytes_total")
    logged = [log for log in context.supporting if log.bytes_total is not None]
    shipped = context.script.size if context.script is not None else None
    for log in logged:
        model = log.model_bytes if log.model_bytes is not None else (log.bytes_total or 0) - (log.bytes_code or 0)
        counted = model + (shipped if shipped is not None else log.bytes_code or 0)
        if (log.bytes_total or 0) > cap or counted > cap:
            _over(context, log.name, log.bytes_line, log.bytes_total or 0, counted if shipped is not None else None)
    if claimed is not None and claimed > cap:
        context.flag(
            "I16",
            context.strict("BLOCK" if logged and min(log.bytes_total or 0 for log in logged) > cap else "LIKELY"),
            f"submission.json claims {claimed:,.0f} bytes; the cap is {cap:,} (decimal, not {16 * 2**20:,}).",
            "Shrink the model or the code.",
            file=_json(context),
            kind="meta",
        )
    elif claimed is not None and claimed > cap - CLOSE:
        context.flag(
            "R1",
            "INFO",
            f"{cap - claimed:,.0f} bytes are left under the cap; sizes drift from seed to seed.",
            "Leave a margin.",
            file=_json(context),
            kind="meta",
        )
    _sum(context, claimed)
    _code(context, expanded)


def _over(context: Context, name: str, line: int, logged: int, counted: int | None) -> None:
    """Report a log whose total is over the cap, by what is known of the code that is shipped."""
    cap = context.rules.limits.cap_bytes
    claimed = context.submission.number("bytes_total")
    if counted is not None:
        severity = context.strict("BLOCK") if counted > cap else "INFO"
        text = f"The log says {logged:,} bytes; its model and the shipped script take {counted:,}; the cap is {cap:,}."
    else:
        severity = context.strict("LIKELY") if claimed is not None and claimed > cap else "REVIEW"
        text = f"The log says {logged:,} bytes, over the cap of {cap:,}, and there is no script to count again."
    context.flag(
        "I16",
        severity,
        text,
        "Shrink the model or pack the code, and log the size that is shipped.",
        file=name,
        line=line,
    )


def _sum(context: Context, claimed: float | None) -> None:
    code, models = context.submission.number("bytes_code"), context.submission.model_bytes
    if claimed is not None and code is not None and len(models) == 1:
        model = next(iter(models.values()))
        if abs(model + code - claimed) > 1:
            context.flag(
                "I19",
                "REVIEW",
                f"Model {model:,} and code {code:,.0f} bytes make {model + code:,.0f}, not {claimed:,.0f}.",
                "Claim the sum.",
                file=_json(context),
                kind="meta",
            )


def _code(context: Context, expanded: dict[str, int]) -> None:
    """Report shipped and expanded code, helpers that count as artifact, and claims that differ."""
    if context.script is None:
        context.notes.skip("bytes of the code: there is no train_gpt.py")
        return
    shipped = context.script.size
    full = expanded.get(context.script.name, shipped)
    note = f"; expanded {full:,}" if full != shipped else ""
    context.flag(
        "R2",
        "INFO",
        f"train_gpt.py ships {shipped:,} bytes{note}.",
        "Nothing to do.",
        file=context.script.name,
        kind="meta",
    )
    code = context.submission.number("bytes_code")
    if code is not None and abs(code - shipped) > max(64, 0.01 * shipped) and abs(code - full) > max(64, 0.01 * full):
        context.flag(
            "R2",
            "REVIEW",
            f"submission.json claims {code:,.0f} bytes of code; train_gpt.py has {shipped:,}{note}.",
            "Count the script that is shipped.",
            file=_json(context),
            kind="meta",
        )
    _others(context)


def _others(context: Context) -> None:
    """Report helpers and large files, which count against the cap if the score needs them."""
    helpers = [f for f in context.entry.files.values() if f.suffix in (*PYTHON, *NATIVE) and f is not context.script]
    if helpers:
        context.flag(
            "R2",
            "REVIEW",
            f"{len(helpers)} further sources, {sum(f.size for f in helpers):,} bytes "
            f"({', '.join(f.name for f in helpers[:3])}): they count if train_gpt.py needs them.",
            "Put into train_gpt.py what it needs.",
            file=helpers[0].name,
            kind="meta",
        )
    known = (
        *PYTHON,
        *NATIVE,
        *SHELL,
        ".json",
        ".md",
        ".txt",
        ".log",
        ".out",
        ".png",
        ".jpg",
        ".svg",
        ".pdf",
        ".gif",
        "",
    )
    blobs = [f for f in context.entry.files.values() if f.suffix not in known and f.size > CLOSE]
    if blobs:
        context.flag(
            "R2",
            "REVIEW",
            f"{blobs[0].name} has {blobs[0].size:,} bytes: what the score needs counts against the cap.",
            "Say what it is for, or remove it.",
            file=blobs[0].name,
            kind="meta",
        )


def _json(context: Context) -> str:
    return context.submission_file.name if context.submission_file is not None else ""
