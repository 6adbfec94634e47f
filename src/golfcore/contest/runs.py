"""Read the values that a comparison is about: from logs, runs, entries, or numbers."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from golfcore.contest.checks.context import gather
from golfcore.contest.checks.seeds import copied_runs
from golfcore.contest.findings import clean
from golfcore.contest.folder import MAX_TEXT, SCRIPT, SUBMISSION, read_entry
from golfcore.contest.log_facts import LogFacts, read_log, seed_of
from golfcore.contest.ruleset import RuleSet
from golfcore.errors import InputError

Quantity = Literal["loss", "step_ms", "train_s", "eval_s"]
SCORE = "score.json"


@dataclass(frozen=True, slots=True)
class RunValue:
    """A value of one run, in nats per token, ms or s; ``seed`` is None if it is not known."""

    name: str
    value: float
    seed: int | None = None
    log: LogFacts | None = None


def read_values(words: list[str], of: Quantity, rules: RuleSet, bytes_per_token: float = 0.0) -> list[RunValue]:
    """Read a value from each of several logs, run folders, entries and numbers.

    Args:
        words: Paths of logs, of folders of runs or entries, or numbers.
        of: ``loss`` in nats per token, ``step_ms``, ``train_s`` or ``eval_s``.
        rules: The rule set, for reading entries.
        bytes_per_token: Turns bits per byte into nats per token where a log has no loss; 0 if it is not known.

    Raises:
        InputError: a path does not exist, has no such value, or two runs are one under two seeds.
    """
    found: list[RunValue] = []
    for word in words:
        found += _values(word, of, rules, bytes_per_token)
    copies = copied_runs([value.log for value in found if value.log is not None])
    if copies:
        first, second = (clean(name) for name in copies[0])
        raise InputError(f"{first} and {second} are one run under two seeds: all losses are equal; leave one out")
    exact = [value for value in found if of == "loss" and value.log is not None]
    for index, value in enumerate(exact):
        same = [other for other in exact[:index] if other.value == value.value and other.seed != value.seed]
        if same:
            raise InputError(
                f"{clean(same[0].name)} and {clean(value.name)} have one loss {value.value} under two seeds: a copy is "
                "no second run; leave one out"
            )
    return found


def _values(word: str, of: Quantity, rules: RuleSet, bytes_per_token: float) -> list[RunValue]:
    try:
        number = float(word)
    except ValueError:
        pass
    else:
        if not math.isfinite(number):
            raise InputError(f"{word!r} is no finite number; expected a loss or a time")
        return [RunValue(word, number)]
    path = Path(word)
    if path.is_file() and path.suffix == ".json":
        return [_score(path, of)]
    if path.is_file():
        with path.open("rb") as file:
            text = file.read(MAX_TEXT).decode("utf-8", "replace")
        return [_from_log(read_log(path.name, text), of, bytes_per_token)]
    if (path / SCORE).is_file():
        return [_score(path / SCORE, of)]
    if path.is_dir() and any((path / name).is_file() for name in (SCRIPT, SUBMISSION)):
        logs = gather(read_entry(path), rules).supporting
        return [_from_log(log, of, bytes_per_token) for log in logs if of != "loss" or log.final]
    raise InputError(f"{clean(word)}: no log, no run with {SCORE}, no entry and no number")


def _from_log(log: LogFacts, of: Quantity, bytes_per_token: float) -> RunValue:
    value: float | None = None
    if of == "loss":
        value = log.val_loss
        if value is None and log.val_bpb is not None and bytes_per_token:
            value = log.val_bpb * math.log(2) * bytes_per_token
    elif of == "step_ms":
        steps = [event["step_ms"] for event in log.events if event.get("step_ms") is not None]
        value = steps[-1] if steps else 1000 * log.train_s / log.steps if log.train_s and log.steps else None
    else:
        value = getattr(log, of)
    if value is None:
        hint = "; give --bytes-per-token to take it from val_bpb" if of == "loss" and log.val_bpb is not None else ""
        raise InputError(f"{clean(log.name)} has no {of}{hint}")
    return RunValue(log.name, value, seed_of(log), log)


def _score(path: Path, of: Quantity) -> RunValue:
    if of != "loss":
        raise InputError(f"{clean(str(path))} has no {of}; name the run's log.txt")
    try:
        score: Any = json.loads(path.read_bytes()[:MAX_TEXT])
        value = float(score["val_loss"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{clean(str(path))}: no val_loss can be read: {clean(str(error))}") from error
    if not math.isfinite(value):
        raise InputError(f"{clean(str(path))}: val_loss is {value}; expected a finite number")
    return RunValue(path.parent.name, value)
