"""Write the report of a run as one self-contained HTML page: no script, no network, light and dark.

Everything shown passes through the template's autoescape; only the SVG drawings, which hold no text of the run, are
marked as safe. The page's content policy also forbids scripts and requests.
"""

from __future__ import annotations

import dataclasses
import math
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from golfcore.config import SECTIONS
from golfcore.hints import command
from golfcore.paths import atomic_write
from golfcore.report.curves import Curve, bpb_svg, loss_svg
from golfcore.report.load import RunData, load_run, number
from golfcore.report.summary import summarize
from golfcore.run_folder import ARTIFACT, CONFIG, ENV, LEDGER, LOG, METRICS, QUANTIZATION_ERRORS, REPORT, SCORE
from golfcore.training.next_step import data_words, next_step

OVERHEAD = ("scale", "control", "tokenizer", "code", "framing")  # every other role is a group of matrices
FILES = (
    (CONFIG, "the resolved recipe"),
    (LOG, "the contest's log lines"),
    (METRICS, "every logged step, unrounded"),
    (ENV, "machine and versions"),
    (LEDGER, "seconds by phase"),
    (QUANTIZATION_ERRORS, "errors of quantization, by tensor"),
    (ARTIFACT, "the packed model that was scored"),
    (SCORE, "the score and the facts behind it"),
)


def build_report(run_dir: Path) -> Path:
    """Write ``report.html`` into a run folder, whatever the state of the run, and return its path.

    The same folder always gives the same page.

    Raises:
        InputError: ``run_dir`` is not a run folder, or it cannot be written.
    """
    run = load_run(run_dir)
    path = run_dir / REPORT
    with atomic_write(path) as f:
        f.write(render("report.html", _context(run)))
    return path


def render(template: str, context: dict[str, Any]) -> bytes:
    """Render a template of this package; everything but ``Markup`` is escaped, and a missing name is an error."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"count": _count, "share": _share, "decimal": _decimal}
    return templates.get_template(template).render(context).encode(errors="backslashreplace")


def _context(run: RunData) -> dict[str, Any]:
    summary = summarize(run)
    return {
        "summary": summary,
        "subtitle": _subtitle(run),
        "notes": _notes(run, summary),
        "score": _score(run),
        "clock": summary["clock"] | {"share": _ratio(summary["clock"]["seconds"], summary["clock"]["budget_s"])},
        "size": summary["bytes"] | {"share": _ratio(summary["bytes"]["used"], summary["bytes"]["cap"])},
        "eval": _evaluation(run),
        "curves": _curves(run),
        "bytes": _bytes(run, summary["bytes"]),
        "errors": _errors(run),
        "phases": _phases(run),
        "environment": _environment(run),
        "sections": _sections(run),
        "config_text": run.config_text,
        "files": [
            {"name": name, "what": what, "bytes": (run.run_dir / name).stat().st_size}
            for name, what in FILES
            if (run.run_dir / name).is_file()
        ],
        "commands": _commands(run),
    }


def _ratio(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole


def _subtitle(run: RunData) -> list[str]:
    """Return the facts that tell this run from others, in the order they are read."""
    track = run.config.get("track")
    started = str(run.env.get("started", ""))
    try:
        start = datetime.fromisoformat(started)
        when = f"{start.day} {start:%B %Y, %H:%M %Z}".strip()
    except ValueError:
        when = started
    parts = [
        f"recipe {run.config['name']}" if "name" in run.config else "",
        f"track {track['name']}" if isinstance(track, dict) and "name" in track else "",
        when,
        f"commit {run.env['commit']}{' (changed)' if run.env.get('dirty') else ''}" if "commit" in run.env else "",
    ]
    return [part for part in parts if part]


def _notes(run: RunData, summary: dict[str, Any]) -> list[str]:
    """Return what is missing from the page, and why."""
    notes = []
    if summary["state"] == "interrupted":
        names = ", ".join(phase["phase"] for phase in run.ledger if not phase["complete"])
        notes.append(f"This run was cut off, or is still going on: the phase {names} has not ended.")
    elif summary["state"] == "unscored":
        notes.append("This run has no score yet: it has not been evaluated from packed bytes.")
    elif summary["state"] == "empty":
        notes.append("This run has not begun to train.")
    return notes + [f"Could not be read: {problem}" for problem in run.problems]


def _score(run: RunData) -> dict[str, Any] | None:
    bpb = number(run.score.get("val_bpb"))
    if bpb is None:
        return None
    digits = f"{bpb:.8f}"
    facts = [
        ("loss", _decimal(number(run.score.get("val_loss")), 6), "nats per token"),
        ("scored", _count(number(run.score.get("tokens"))), "tokens"),
        ("text", _count(number(run.score.get("bytes"))), "bytes"),
        ("context", _count(number(run.score.get("context"))), "tokens"),
        ("stride", _strides(run.score), "tokens"),
    ]
    hashes = [("model", run.score.get("artifact_sha256")), ("data", run.score.get("data_sha256"))]
    return {
        "head": digits[:-4],
        "tail": digits[-4:],
        "adapted": run.score.get("adapt") == "mix",
        "facts": [fact for fact in facts if fact[1] != "–"],
        "hashes": [(name, value) for name, value in hashes if isinstance(value, str) and value],
    }


def _strides(score: dict[str, Any]) -> str:
    """Return the stride, or all strides that a clock took one after the other, such as ``64, 128``."""
    pace = score.get("pace")
    taken = pace.get("strides") if isinstance(pace, dict) else None
    pairs = [pair for pair in taken if isinstance(pair, list) and len(pair) == 2] if isinstance(taken, list) else []
    if len(pairs) > 1:
        return ", ".join(_count(number(stride)) for _, stride in pairs)
    return _count(number(score.get("stride")))


def _evaluation(run: RunData) -> dict[str, Any]:
    phase = next((p for p in run.ledger if p["phase"] == "evaluate"), None)
    track = run.config.get("track")
    seconds = phase["seconds"] if phase else number(run.score.get("eval_s"))
    budget = phase["budget_s"] if phase else number(track.get("eval_s")) if isinstance(track, dict) else None
    return {"seconds": seconds, "budget_s": budget, "share": _ratio(seconds, budget)}


def points_of(run: RunData, kind: str, key: str) -> Curve:
    """Return a value of a run's metric rows over its training clock."""
    found = []
    for row in run.metrics:
        if row["kind"] == kind:
            point = (number(row.get("train_s")), number(row["step"]), number(row.get(key)))
            if None not in point:
                found.append(point)
    return Curve.of(found)  # type: ignore[arg-type]


def _curves(run: RunData) -> dict[str, Any]:
    train = points_of(run, "train", "train_loss")
    val, bpb = points_of(run, "val", "val_loss"), points_of(run, "val", "val_bpb")
    final = number(run.score.get("val_bpb"))
    pairs = [(row.get("val_loss"), row.get("val_bpb")) for row in [*run.metrics, run.score]]
    ratio = next((b / n for n, b in ((number(n), number(b)) for n, b in reversed(pairs)) if n and b), None)
    converted = train.scaled(ratio) if ratio else Curve.of([])
    diverged = sum(row["kind"] == "train" and row.get("train_loss") is None for row in run.metrics)
    return {
        "loss": Markup(loss_svg(train, val)) if len(train) or len(val) else None,
        "bpb": Markup(bpb_svg(bpb, converted, final)) if len(bpb) or final is not None else None,
        "has_val": len(bpb) > 0,
        "has_converted": len(converted) > 0,
        "final": final,
        "diverged": diverged,
    }


def _role_css(role: str) -> str:
    if role in OVERHEAD:
        return role
    return "embedding" if role in ("embed", "head", "embedding") else "matrix"


def _bytes(run: RunData, size: dict[str, Any]) -> dict[str, Any] | None:
    """Return the parts of the byte bar: matrices, overhead, free bytes, as shares of the larger of cap and total."""
    if not run.artifact:
        return None
    order = {role: index for index, role in enumerate(OVERHEAD)}
    rows = sorted(run.artifact["roles"], key=lambda row: order.get(row["role"], -1))
    total = run.artifact["total"]
    whole = max(total, size["cap"] or 0) or 1
    shown = [
        {
            "role": row["role"],
            "css": _role_css(row["role"]),
            "bytes": row["bytes"],
            "share": row["bytes"] / whole,
            "params": row["params"],
            "bits": row["bits_per_weight"],
            "order0": row["order0_bits"],
        }
        for row in rows
        if row["bytes"]
    ]
    return {
        "rows": shown,
        "total": total,
        "cap": size["cap"],
        "free": size["free"],
        "free_share": max(0, size["free"] or 0) / whole,
        "cap_share": size["cap"] / whole if size["cap"] else None,
        "params": sum(row["params"] or 0 for row in shown),
    }


def _errors(run: RunData) -> dict[str, Any] | None:
    """Return the errors of quantization: one row per tensor, each quantized alone, and all together."""

    def row(found: dict[str, Any]) -> dict[str, Any]:
        kl = number(found.get("kl"))
        numbers = {key: number(found.get(key)) for key in ("params", "bits", "states", "error_db", "hessian_db", "bpb")}
        return numbers | {"name": str(found.get("name", "")), "kl": None if kl is None else 1000 * kl}

    tensors, total = run.errors.get("tensors"), run.errors.get("total")
    if not isinstance(tensors, list) or not isinstance(total, dict):
        return None
    rows = [row(found) for found in tensors if isinstance(found, dict)]
    return {
        "rows": [found for found in rows if (found["bits"] or 16) < 16],
        "total": row(total | {"name": "in all"}),
        "before": number(total.get("bpb_before")),
        "tokens": number(total.get("tokens")),
        "calibration_tokens": number(total.get("calibration_tokens")),
    }


def _phases(run: RunData) -> dict[str, Any] | None:
    if not run.ledger:
        return None
    total = sum(phase["seconds"] for phase in run.ledger)
    rows = [
        phase
        | {
            "share": _ratio(phase["seconds"], total) or 0.0,
            "used": _ratio(phase["seconds"], phase["budget_s"]),
            "css": str(index % 6),
        }
        for index, phase in enumerate(run.ledger)
    ]
    stop = next((event for event in reversed(run.log_events) if event["kind"] == "stop"), None)
    return {"rows": rows, "total": total, "stop": stop}


def _environment(run: RunData) -> list[tuple[str, str]]:
    names = {
        "cpu": "processor", "cores": "cores", "threads": "threads", "isa": "instructions", "gpus": "GPUs",
        "cuda": "CUDA kernels", "torch": "torch", "python": "Python", "golfcore": "golfcore", "platform": "system",
    }  # fmt: skip
    rows = []
    for key, label in names.items():
        value = run.env.get(key)
        if value not in (None, "", []):
            rows.append((label, ", ".join(map(str, value)) if isinstance(value, list) else str(value)))
    memory = next((event for event in reversed(run.log_events) if event["kind"] == "memory"), None)
    if rows and memory and "allocated_mib" in memory:
        rows.append(("peak memory", f"{memory['allocated_mib']:,} MiB"))
    return rows


def _sections(run: RunData) -> list[dict[str, Any]]:
    """Return the tables of the config; a value that differs from a default known here is marked."""
    sections = []
    for name, table in run.config.items():
        if not isinstance(table, dict):
            continue
        defaults = {f.name: f.default for f in dataclasses.fields(SECTIONS[name])} if name in SECTIONS else {}
        rows = [(key, _show(value), key in defaults and defaults[key] != _plain(value)) for key, value in table.items()]
        sections.append({"name": name, "rows": rows})
    return sections


def _plain(value: object) -> object:
    """Return a value as the defaults hold it: TOML has lists, the configs have tuples."""
    return tuple(value) if isinstance(value, list) else value


def _show(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_show, value)) or "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value:,}"
    return "not set" if value == "" else str(value)


def _commands(run: RunData) -> list[tuple[str, str]]:
    """Return commands that work from the folder in which the page was made, each with what it does."""
    folder, model = run.run_dir, run.run_dir / ARTIFACT
    step = next_step(folder)
    commands = []
    if step.state not in ("absent", "packed", "scored"):
        commands.append((step.command, step.why.removesuffix(" with")))
    if run.artifact_bytes is not None:
        commands.append((command("inspect", model), "every tensor: codec, bytes, bits per weight"))
        if words := data_words(folder):
            commands.append((command("eval", model, *words), "read the score again"))
    commands.append((command("report", folder, "--json"), "this page's numbers, for a program"))
    return commands


def _count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _decimal(value: float | None, places: int) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:,.{places}f}"


def _share(value: float | None) -> str:
    """Return a percentage that is rounded to 100 only if it is 100."""
    if value is None:
        return "–"
    text = f"{100 * value:.1f}"
    return "99.9%" if text == "100.0" and value < 1 else "100%" if text == "100.0" else f"{text}%"
