"""Read from a training log what an organizer asks first: score, bytes, seed, steps, seconds, data, calibration."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from golfcore.contest.logs import MAX_LINE, final_score, parse_log

MAX_SETTINGS = 2_000
SAME = 6e-5  # scores that differ by less are one score, printed with 4 and with 8 digits
DIVERGED = 0.05
_SEED_NAME = re.compile(r"(?:seed|_s|train)[_=-]?(\d{1,10})(?!\d)", re.IGNORECASE)
_SETTING = re.compile(r"^\s{0,8}([A-Za-z_]\w{0,60})\s{0,4}[:=]\s{0,4}(.{0,400})$")
_STEP_LINE = re.compile(r"\s{0,4}(?:step:)?\d")
_WORD = re.compile(r"(?<![\w./-])([A-Za-z_]\w{0,60})[:=]([^\s,|]{1,200})")
_COLLECTED = re.compile(r"collected .{0,60}?hessians? .{0,40}?in (\d{1,7}(?:\.\d{1,6})?)\s?s", re.IGNORECASE)
_CALIBRATION = re.compile(r"calibrat|collecting .{0,20}hessian", re.IGNORECASE)
_SELF_MADE = re.compile(r"self.?gen|autoregressive|random|synthetic", re.IGNORECASE)
_TOTAL = re.compile(
    r"(?:total submission(?: size)?[^:]{0,40}|artifact_bytes|bytes_total|total_bytes)\s{0,20}[:=]\s{0,20}"
    r"(\d{1,3}(?:,\d{3}){1,4}|\d{4,15})(?! ?MB)(?:\s{0,4}bytes)?",
    re.IGNORECASE,
)
_NO_CODEC = re.compile(r"submission(?: size)?\s{0,4}:", re.IGNORECASE)
_EVAL_TOTAL = re.compile(r"total_eval_time\s{0,4}[:=]\s{0,4}(\d{1,9}(?:\.\d{1,6})?)(ms|s)?")
_EPOCH = re.compile(r"(?:ttt|adapt|val)\w{0,20}[ :_\[]{1,3}epoch[ :=\[]{1,3}(\d{1,6})", re.IGNORECASE)
GATES = ("within_gate", "word_gate", "agree2plus", "within_gates", "word_gates")


@dataclass
class LogFacts:
    """The facts of one log; a fact that the log does not state is None, a line is 0."""

    name: str
    seed: int | None = None  # as the log prints it
    named_seed: int | None = None  # as the name of the file has it
    val_loss: float | None = None
    val_bpb: float | None = None
    score_line: int = 0
    final: bool = False  # whether the score is of packed weights, and not the last validation of training
    bytes_total: int | None = None
    bytes_line: int = 0
    bytes_code: int | None = None
    bytes_code_expanded: int | None = None
    steps: int | None = None
    train_s: float | None = None
    train_line: int = 0
    stop_line: int = 0
    eval_s: float | None = None
    eval_line: int = 0
    calibration_s: float | None = None
    calibration_line: int = 0
    self_calibrated: bool = False
    train_shards: int | None = None
    val_tokens: int | None = None
    model_bytes: int | None = None
    gates: dict[str, tuple[float, int]] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    setting_lines: dict[str, int] = field(default_factory=dict)
    adaptation_epochs: list[int] = field(default_factory=list)  # lines
    events: list[dict[str, Any]] = field(default_factory=list)


def read_log(name: str, text: str) -> LogFacts:
    """Return the facts of a log; ``name`` is its file name, which may tell the seed."""
    facts = LogFacts(name, events=parse_log(text))
    for number, line in enumerate(text.split("\n"), 1):
        _read_line(facts, number, line[:MAX_LINE])
    _read_events(facts)
    _read_settings(facts)
    return facts


def seed_of(facts: LogFacts) -> int | None:
    """Return the seed of a log: that of its file name, else the one that it prints."""
    return facts.seed if facts.named_seed is None else facts.named_seed


def looks_like_log(facts: LogFacts) -> bool:
    """Return whether a text is a training log: it has steps or a final score."""
    return any(event["kind"] in ("train", "val", "final", "stop") for event in facts.events)


def finals(facts: LogFacts) -> list[dict[str, Any]]:
    """Return the events of a log that are scores of packed weights."""
    return [event for event in facts.events if event["kind"] == "final"]


def _claimed(facts: LogFacts) -> dict[str, Any] | None:
    """Return the last final score, or the best one if the last is much worse: an adaptation that diverged."""
    last = final_score(facts.events)
    if last is None:
        return None
    best = min(finals(facts), key=lambda event: float(event["val_bpb"]))
    return last if last["val_bpb"] <= best["val_bpb"] + DIVERGED else best


def _read_line(facts: LogFacts, number: int, line: str) -> None:
    if "=" in line or ":" in line:
        setting = _SETTING.match(line)
        plain = setting is not None and " " not in setting[2] and not _STEP_LINE.match(line)
        pairs = [setting.groups()] if setting is not None and plain else []
        pairs += _WORD.findall(line) if len(facts.settings) < MAX_SETTINGS else []
        for key, value in pairs:
            if len(facts.settings) < MAX_SETTINGS or key in facts.settings:
                facts.settings.setdefault(key, value.strip())
                facts.setting_lines.setdefault(key, number)
            if key in GATES and (gate := _number(value)) is not None:
                facts.gates[key] = (gate, number)
    if "total" in line.lower() or "bytes" in line:
        match = _TOTAL.search(line)
        if match:
            size = int(match[1].replace(",", ""))
            # Without a codec it may be the size before compression, which some scripts print first and others last.
            if facts.bytes_total is None or size < facts.bytes_total or not _NO_CODEC.search(line):
                facts.bytes_total, facts.bytes_line = size, number
    if match := _EVAL_TOTAL.search(line):
        facts.eval_s = float(match[1]) / (1000.0 if match[2] == "ms" else 1.0)
        facts.eval_line = number
    if _CALIBRATION.search(line):
        facts.calibration_line = facts.calibration_line or number
        facts.self_calibrated |= bool(_SELF_MADE.search(line))
    if match := _COLLECTED.search(line):
        facts.calibration_s, facts.calibration_line = float(match[1]), number
    if _EPOCH.search(line):
        facts.adaptation_epochs.append(number)


def _read_events(facts: LogFacts) -> None:
    """Take score, sizes, steps and times from the events; the last of a kind counts."""
    score = _claimed(facts)
    facts.final = score is not None
    vals = [event for event in facts.events if event["kind"] == "val" and event.get("val_bpb") is not None]
    if score is None and vals:
        score = vals[-1]
    if score is not None:
        facts.val_loss, facts.val_bpb = score.get("val_loss"), score.get("val_bpb")
        facts.score_line = score["line"]
    if facts.final and score is not None and facts.eval_s is None:
        timed = [e for e in finals(facts) if e.get("eval_ms") and abs(e["val_bpb"] - score["val_bpb"]) < SAME]
        if timed:
            facts.eval_s, facts.eval_line = timed[-1]["eval_ms"] / 1000.0, timed[-1]["line"]
    for event in facts.events:
        kind = event["kind"]
        if kind == "size" and event["what"] == "model" and event.get("codec"):
            facts.model_bytes = event["bytes"]
        elif kind == "size" and event["what"] == "code":
            expanded = "uncompressed" in (event.get("codec") or "")
            setattr(facts, "bytes_code_expanded" if expanded else "bytes_code", event["bytes"])
        elif kind in ("train", "val", "stop"):
            facts.steps = event.get("step", facts.steps)
            if event.get("train_ms") is not None:
                facts.train_s, facts.train_line = event["train_ms"] / 1000.0, event["line"]
            facts.stop_line = event["line"] if kind == "stop" else facts.stop_line
    if facts.bytes_code is None:
        facts.bytes_code = facts.bytes_code_expanded


def _read_settings(facts: LogFacts) -> None:
    """Take seed, shards and validation tokens from the settings that a log prints."""
    named = _SEED_NAME.search(facts.name)
    for key, attribute in (("seed", "seed"), ("train_shards", "train_shards"), ("val_tokens", "val_tokens")):
        number = _number(facts.settings.get(key) or facts.settings.get(key.upper()) or "")
        if number is not None:
            setattr(facts, attribute, int(number))
    if facts.val_tokens is None:
        number = _number(facts.settings.get("tokens", "")) if "val_loader:shards" in facts.settings else None
        facts.val_tokens = None if number is None else int(number)
    facts.named_seed = int(named[1]) if named else None


def _number(text: str) -> float | None:
    try:
        value = float(text.strip().rstrip(",;").replace(",", "").replace("_", ""))
    except ValueError:
        return None
    return value if abs(value) < 1e15 else None
