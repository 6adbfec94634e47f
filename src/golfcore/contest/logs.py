"""Parse training logs of the contest: both dialects in use, and the lines that end a run.

Logs are untrusted: only the first ``MAX_LINE`` characters of a line are read, and every repeat in a pattern is bounded,
so that the time grows only with the length of the log.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

MAX_LINE = 2_000

Pairs = dict[str, tuple[float | None, str]]  # key -> (number or None for nan and inf, unit)

# step:200/20000 in the first dialect, 4500/20000 in the second.
_STEP = re.compile(r"(?:step:\s?)?(\d{1,12})/(\d{1,12})(?=\s)")
# key:1.5ms, key: 1.5m, key=1.5. The lookbehind keeps a scan from starting again inside a word.
_PAIR = re.compile(
    r"(?<![\w/.+-])([A-Za-z][\w/]{0,40})[:=]\s{0,20}"
    r"([+-]?(?:\d{1,15}(?:\.\d{0,15})?(?:[eE][+-]?\d{1,3})?|nan|inf))(ms|s|m)?(?![\w.])"
)
_SIZE = re.compile(r"(Code size|Serialized model|Total submission size)([^:]{0,60}):\s{0,20}(\d{1,15}) bytes")
_SIZE_OF = {"Code size": "code", "Serialized model": "model", "Total submission size": "total"}
_MILLISECONDS = {"ms": 1.0, "s": 1_000.0, "m": 60_000.0, "": 1.0}
# Scores of other weights than the packed ones.
_DIAGNOSTIC = ("diagnostic", "pre-quantization", "pre_quant", "post_ema")


def parse_log(text: str) -> list[dict[str, Any]]:
    """Parse a log into events, line by line, in its order.

    Times are milliseconds, losses nats per token; a loss that is not finite is None. A key is absent if the line does
    not have it; ``line`` counts from 1. The kinds, and their keys beside ``kind`` and ``line``:

    - ``train``: step, total, train_loss, train_ms, step_ms (average so far), tokens_per_s
    - ``val``: step, total, val_loss, val_bpb, train_ms, step_ms
    - ``stop``: reason, step, total, train_ms
    - ``memory``: allocated_mib, reserved_mib
    - ``size``: what (code, model, total), codec, bytes
    - ``final``: name, val_loss, val_bpb, eval_ms: a score of packed weights, such as
    ``final_int8_zlib_roundtrip_exact`` - ``diagnostic``: the same of other weights, as before quantization -
    ``resume``: step
    """
    events = []
    for number, line in enumerate(text.split("\n"), 1):
        event = _parse_line(line[:MAX_LINE].strip())
        if event is not None:
            events.append({**event, "line": number})
    return events


def final_score(events: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the last ``final`` event, the score that a log claims, or its 8-digit twin if the log has one."""
    finals = [event for event in events if event["kind"] == "final"]
    if not finals:
        return None
    last = finals[-1]
    twins = [e for e in finals if "_exact" in e["name"] and e["name"].replace("_exact", "") == last["name"]]
    return twins[-1] if twins else last


def _parse_line(line: str) -> dict[str, Any] | None:
    if match := _STEP.match(line):
        return _step_event(int(match[1]), int(match[2]), _pairs(line))
    if line.startswith("stopping_early"):
        return _stop_event(line)
    if line.startswith("peak memory"):
        pairs = _pairs(line)
        return _event(
            "memory", allocated_mib=_whole(pairs, "allocated", "memory"), reserved_mib=_whole(pairs, "reserved")
        )
    if line.startswith("resumed step:"):
        return _event("resume", step=_whole(_pairs(line), "step"))
    if match := _SIZE.match(line):
        return _event("size", what=_SIZE_OF[match[1]], codec=match[2].strip(" ()") or None, bytes=int(match[3]))
    return _score_event(line) if "val_bpb" in line else None


def _step_event(step: int, total: int, pairs: Pairs) -> dict[str, Any] | None:
    clock = {"train_ms": _ms(pairs, "train_time", "t"), "step_ms": _ms(pairs, "step_avg")}
    if "val_bpb" in pairs or "val_loss" in pairs:
        event = _event("val", step=step, total=total, **clock)
        return event | {key: pairs[key][0] for key in ("val_loss", "val_bpb") if key in pairs}
    for key in ("train_loss", "loss"):
        if key in pairs:
            event = _event("train", step=step, total=total, **clock, tokens_per_s=_number(pairs, "tok/s"))
            return event | {"train_loss": pairs[key][0]}
    return None


def _stop_event(line: str) -> dict[str, Any]:
    reason = line.partition(":")[2].split(maxsplit=1)
    at = re.search(r"step:\s{0,5}(\d{1,12})/(\d{1,12})", line)
    return _event(
        "stop",
        reason=reason[0] if reason else None,
        step=int(at[1]) if at else None,
        total=int(at[2]) if at else None,
        train_ms=_ms(_pairs(line), "train_time"),
    )


def _score_event(line: str) -> dict[str, Any] | None:
    pairs = _pairs(line)
    if _number(pairs, "val_bpb") is None:
        return None
    first = _PAIR.search(line)
    name = line[: first.start()].strip() if first else ""
    return _event(
        "diagnostic" if name.lower().startswith(_DIAGNOSTIC) else "final",
        name=name,
        val_loss=_number(pairs, "val_loss"),
        val_bpb=_number(pairs, "val_bpb"),
        eval_ms=_ms(pairs, "eval_time", "time", "elapsed"),
    )


def _event(kind: str, **values: Any) -> dict[str, Any]:
    return {"kind": kind} | {key: value for key, value in values.items() if value is not None}


def _pairs(line: str) -> Pairs:
    """Return the ``key:number`` and ``key=number`` of a line; of a repeated key the first counts."""
    result: Pairs = {}
    for key, number, unit in _PAIR.findall(line):
        value = float(number)
        result.setdefault(key, (value if math.isfinite(value) else None, unit))
    return result


def _number(pairs: Pairs, *keys: str) -> float | None:
    return next((pairs[key][0] for key in keys if key in pairs), None)


def _whole(pairs: Pairs, *keys: str) -> int | None:
    value = _number(pairs, *keys)
    return None if value is None else int(value)


def _ms(pairs: Pairs, *keys: str) -> float | None:
    found = next((pairs[key] for key in keys if key in pairs), None)
    return None if found is None or found[0] is None else found[0] * _MILLISECONDS[found[1]]
