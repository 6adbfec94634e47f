"""Read submission.json in all the spellings that entrants used, and fold them to one."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

MAX_DEPTH = 40
ALIASES: dict[str, tuple[str, ...]] = {
    "val_bpb": ("val_bpb", "mean_val_bpb", "val_bpb_mean", "mean_bpb", "final_val_bpb", "bpb", "val_bpb_exact"),
    "val_loss": ("val_loss", "mean_val_loss", "val_loss_mean", "mean_val_loss_nats", "val_loss_nats", "final_val_loss"),
    "bytes_total": (
        "bytes_total",
        "artifact_bytes",
        "artifact_bytes_max",
        "artifact_size_bytes",
        "total_bytes",
        "bytes_total_max",
        "submission_bytes",
        "artifact_bytes_total",
    ),
    "bytes_code": ("bytes_code", "code_bytes", "bytes_code_max"),
    "author": ("author", "github_id", "github", "authors"),
    "blurb": ("blurb", "summary", "description", "technique_summary"),
    "name": ("name", "run_name", "title"),
    "date": ("date", "submission_date"),
    "track": ("track",),
    "val_bpb_std": ("val_bpb_std", "std_bpb", "val_bpb_stdev", "bpb_std"),
    "steps": ("step_stop", "steps", "train_steps", "train_steps_mean", "steps_mean"),
    "train_s": (
        "wallclock_seconds",
        "training_time_seconds",
        "train_time_seconds",
        "train_time_s",
        "train_time_s_mean",
    ),
    "eval_s": ("eval_time_seconds", "eval_time_s", "eval_time_s_mean", "ttt_eval_time_s"),
    "hardware": ("hardware", "gpu", "platform"),
}
MILLISECONDS = {"train_s": ("train_time_ms",), "eval_s": ("eval_time_ms", "ttt_time_ms")}
_SEED_KEY = re.compile(r"^(?:seed[_ ]?)?(\d{1,20})$")
_NUMBER = re.compile(r"[-+]?\d[\d_,]*(?:\.\d+)?(?:[eE][-+]?\d{1,3})?")


@dataclass
class Submission:
    """The claims of submission.json under one name each; ``seeds`` has the claims of each seed."""

    raw: dict[str, Any] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)  # the spelling that each value was found under
    seeds: dict[int, dict[str, float]] = field(default_factory=dict)
    declared_seeds: list[int] = field(default_factory=list)
    model_bytes: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def number(self, name: str) -> float | None:
        """Return a claim as a number, or None if it is absent or not one."""
        return as_number(self.values.get(name))


def parse_submission(text: str) -> Submission:
    """Return the claims of a submission.json; what is wrong with it is in ``problems``."""
    result = Submission()
    depth = _depth(text)
    if depth > MAX_DEPTH:
        result.problems.append(f"it is nested {depth} deep; expected one object of plain values")
        return result
    try:
        raw = json.loads(text, object_pairs_hook=_pairs(result), parse_constant=lambda name: None)
    except (ValueError, RecursionError) as error:
        result.problems.append(f"it is not JSON: {error}")
        return result
    if isinstance(raw, list) and len(raw) == 1:
        raw = raw[0]
        result.problems.append("it is a list with one object; expected the object itself")
    if not isinstance(raw, dict):
        result.problems.append(f"it is {type(raw).__name__}; expected an object")
        return result
    result.raw = raw
    _fold(result)
    _read_seeds(result)
    return result


def as_number(value: Any) -> float | None:
    """Return a number, or the only number in a string such as ``"15,900,000 bytes"``, or the mean of a list or dict."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, (int, float)):
        try:
            return float(value) if math.isfinite(value) else None
        except OverflowError:
            return None
    if isinstance(value, str):
        found = _NUMBER.findall(value[:200])
        return as_number(float(found[0].replace(",", "").replace("_", ""))) if len(found) == 1 else None
    if isinstance(value, dict):
        for key in ("mean", "value", "val_bpb", "final"):
            if key in value:
                return as_number(value[key])
        value = list(value.values())
    if isinstance(value, list):
        numbers = [number for number in map(as_number, value[:1000]) if number is not None]
        return sum(numbers) / len(numbers) if numbers and len(numbers) == len(value) else None
    return None


def _fold(result: Submission) -> None:
    """Put every claim under its one name; the first spelling that has a value wins."""
    lowered = {str(key).strip().lower().replace("-", "_").replace(" ", "_"): key for key in result.raw}
    for name, spellings in ALIASES.items():
        for spelling in spellings:
            key = lowered.get(spelling)
            if key is not None and result.raw[key] is not None:
                result.values[name], result.keys[name] = result.raw[key], str(key)
                break
    for name, spellings in MILLISECONDS.items():
        for spelling in spellings:
            number = as_number(result.raw.get(lowered.get(spelling, "")))
            if name not in result.values and number is not None:
                result.values[name], result.keys[name] = number / 1000.0, spelling
    for folded, key in lowered.items():
        number = as_number(result.raw[key]) if folded.startswith("bytes_model") else None
        if number is not None:
            result.model_bytes[str(key)] = int(number)


def _read_seeds(result: Submission) -> None:
    """Read seeds from ``seeds``, ``seed``, ``seed_results`` and ``seed_42``, in lists, dicts or plain numbers."""
    for key in ("seeds", "seed", "seed_list", "seed_results", "results", "per_seed", "seed_scores"):
        value = result.raw.get(key)
        if isinstance(value, dict):
            for name, claims in value.items():
                _add_seed(result, name, claims)
        elif isinstance(value, list):
            for item in value[:1000]:
                if isinstance(item, dict):
                    _add_seed(result, item.get("seed"), item)
                elif key in ("seeds", "seed", "seed_list"):
                    _declare(result, item)
        elif key in ("seeds", "seed"):
            _declare(result, value)
    for key, value in result.raw.items():
        if key.lower().startswith("seed_") and _SEED_KEY.match(key.lower()):
            _add_seed(result, key, value)
    scores, order = result.raw.get("seed_scores"), list(result.declared_seeds)
    if isinstance(scores, list) and len(scores) == len(order):
        for seed, score in zip(order, scores, strict=True):
            _add_seed(result, seed, score)


def _declare(result: Submission, value: Any) -> int | None:
    if isinstance(value, str) and (match := _SEED_KEY.match(value.strip().lower())):
        value = int(match[1])
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    if value not in result.declared_seeds:
        result.declared_seeds.append(value)
    return value


def _add_seed(result: Submission, name: Any, claims: Any) -> None:
    seed = _declare(result, name)
    if seed is None:
        return
    if not isinstance(claims, dict):
        claims = {"val_bpb": claims}
    own = Submission(raw=claims)
    _fold(own)
    numbers = {key: number for key in own.values if (number := own.number(key)) is not None}
    result.seeds.setdefault(seed, {}).update(numbers)


def _pairs(result: Submission) -> Any:
    def hook(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            double, _ = Counter(key for key, _ in pairs).most_common(1)[0]
            result.problems.append(f"key {double!r} occurs twice; the last one counts")
        return made

    return hook


def _depth(text: str) -> int:
    """Return how deep brackets nest outside of strings."""
    depth = deepest = 0
    quoted, skipped = False, -1
    for match in re.finditer(r'[\[\]{}"\\]', text):
        mark, at = match[0], match.start()
        if at == skipped:
            continue
        if quoted:
            quoted = mark != '"'
            skipped = at + 1 if mark == "\\" else -1
        elif mark == '"':
            quoted = True
        elif mark in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif mark in "]}":
            depth -= 1
    return deepest
