"""Specify a sweep: axes of values or ranges, seeds, and the jobs that follow from them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from golfcore.config import parse_value
from golfcore.errors import FormatError, UsageError

MAX_JOBS = 10_000
_RANGE = re.compile(r"([-+.\deE_]{0,40}?)\.\.([-+.\deE_]{0,40})(:log)?")


@dataclass(frozen=True)
class Axis:
    """A key of the recipe and the values to try: ``values`` as text, or a range from ``low`` to ``high``."""

    key: str
    values: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False  # a range of integers

    @property
    def searched(self) -> bool:
        return not self.values


@dataclass(frozen=True)
class Job:
    """One run of a sweep: ``sets`` are ``key=value`` that change its recipe, without the seed."""

    name: str
    variant: str
    sets: tuple[str, ...]
    seed: int


def parse_axis(option: str) -> Axis:
    """Parse an axis: values (``"optim.matrix_lr=0.02,0.03"``) or a range (``"optim.matrix_lr=0.01..0.1:log"``).

    Commas inside brackets or quotes do not separate: ``train.batch_ramp=[8192,16384],[]``.

    Raises:
        UsageError: the text is neither.
    """
    key, equals, text = option.partition("=")
    key = key.strip().replace("-", "_")
    if not equals or not key:
        raise UsageError(f"--set {option}: expected section.key=a,b,c or section.key=low..high")
    if key == "train.seed":
        raise UsageError("--set train.seed: seeds are counted by --seeds; set the first one with --first-seed")
    if match := _RANGE.fullmatch(text.strip()):
        return _range(option, key, match[1], match[2], bool(match[3]))
    values = tuple(part.strip() for part in _split(text))
    if not all(values) or len(set(values)) < len(values):
        raise UsageError(f"--set {option}: expected values that differ, none of them empty")
    return Axis(key, values)


def _range(option: str, key: str, low: str, high: str, log: bool) -> Axis:
    ends = [parse_value(low), parse_value(high)]
    if not all(isinstance(end, (int, float)) and not isinstance(end, bool) and math.isfinite(end) for end in ends):
        raise UsageError(f"--set {option}: expected two numbers, for example 0.01..0.1")
    if not ends[0] < ends[1] or (log and ends[0] <= 0):
        raise UsageError(f"--set {option}: expected the lower number first{', above 0' if log else ''}")
    return Axis(key, low=float(ends[0]), high=float(ends[1]), log=log, whole=all(isinstance(e, int) for e in ends))


def _split(text: str) -> list[str]:
    """Split ``text`` at its commas, except those inside brackets or quotes."""
    parts, depth, quote = [""], 0, ""
    for sign in text:
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'":
            quote = sign
        else:
            depth += (sign == "[") - (sign == "]")
        if sign == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += sign
    return parts


def grid_jobs(axes: Sequence[Axis], seeds: Sequence[int]) -> list[Job]:
    """Return jobs for every combination of the axes' values with every seed; all first seeds come before the second.

    Raises:
        UsageError: a key occurs twice, or there are more than ``MAX_JOBS`` jobs.
    """
    keys = [axis.key for axis in axes]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise UsageError(f"--set {twice} is given twice: list all its values once, as {twice}=a,b,c")
    count = len(seeds) * math.prod(len(axis.values) for axis in axes)
    if count > MAX_JOBS:
        raise UsageError(f"{count:,} runs: expected at most {MAX_JOBS:,}")
    grid = list(product(*(axis.values for axis in axes)))
    return [
        job
        for seed in seeds
        for number, values in enumerate(grid)
        for job in variant_jobs(number, dict(zip(keys, values, strict=True)), [seed])
    ]


def variant_jobs(number: int, values: dict[str, Any], seeds: Sequence[int]) -> list[Job]:
    """Return the jobs of one combination, one per seed; ``number`` makes their names differ for any values."""
    short = " ".join(f"{key.rpartition('.')[2]}={value}" for key, value in values.items()) or "base"
    slug = re.sub(r"[^\w.=+-]+", "_", short)[:60]
    sets = tuple(f"{key}={value}" for key, value in values.items())
    return [Job(f"{number:03d}-{slug}-s{seed}", short, sets, seed) for seed in seeds]


def spec_text(
    recipe: dict[str, Any], axes: Sequence[Axis], seeds: Sequence[int], trials: int, rule: dict[str, Any]
) -> str:
    """Return the whole spec of a sweep as canonical JSON: equal texts mean equal sweeps."""
    return json.dumps(
        {
            "recipe": recipe, "seeds": list(seeds), "trials": trials, "rule": rule,
            "axes": {a.key: list(a.values) or [a.low, a.high, a.log, a.whole] for a in axes},
        },
        sort_keys=True,
    )  # fmt: skip


def differences(old: str, new: str) -> list[str]:
    """Return the differences of two texts of ``spec_text``, such as ``"recipe.train.seq_len: 256, now 512"``.

    Raises:
        FormatError: a text is not JSON.
    """

    def flat(value: Any, path: str) -> dict[str, Any]:
        if isinstance(value, dict):
            return {
                k: v for key, part in value.items() for k, v in flat(part, f"{path}.{key}" if path else key).items()
            }
        return {path: value}

    try:
        before, after = flat(json.loads(old), ""), flat(json.loads(new), "")
    except (ValueError, RecursionError) as error:
        raise FormatError(f"the spec in the sweep's journal is damaged ({error}): choose another folder") from error
    return [
        f"{key}: {before.get(key, 'absent')}, now {after.get(key, 'absent')}"
        for key in sorted({*before, *after})
        if before.get(key) != after.get(key)
    ]
