"""Group runs into variants, and compare each variant's score with that of a base.

Runs whose recipes differ only in the seed are one variant; its score is the mean of the scores of its runs.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from golfcore.errors import InputError
from golfcore.report.load import RunData, load_run, number
from golfcore.report.summary import summarize
from golfcore.run_folder import CONFIG
from golfcore.stats import T_QUANTILES, mean_interval

MAX_RUNS = 2_000
# Keys that do not make a variant; of those that identify the data, the hash of the tokens tells all.
NOT_COMPARED = {"train.seed", "name", "data.text", "data.text_sha256", "data.tokenizer_sha256"}


@dataclass(frozen=True)
class Variant:
    """Runs of one recipe that differ only in the seed. ``changed`` are the keys that differ from the base's recipe."""

    label: str
    changed: dict[str, tuple[Any, Any]]
    runs: tuple[RunData, ...]
    is_base: bool

    @property
    def scores(self) -> list[float]:
        found = (number(run.score.get("val_bpb")) for run in self.runs)
        return [score for score in found if score is not None]

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.scores) if self.scores else None


def load_runs(folder: Path, base: str) -> tuple[list[RunData], RunData]:
    """Load every run folder directly under ``folder`` (or ``folder`` itself), and the base.

    Args:
        folder: a folder of run folders, such as that of a sweep.
        base: the name of a run in it, or the path of any run.

    Raises:
        InputError: no runs, too many runs, or no such base.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected one that holds run folders, for example runs")
    places = [folder] if (folder / CONFIG).is_file() else sorted(path for path in folder.iterdir() if path.is_dir())
    places = [path for path in places if (path / CONFIG).is_file()]
    if not places or len(places) > MAX_RUNS:
        raise InputError(f"{folder}: {len(places):,} run folders; expected 1 to {MAX_RUNS:,} with a {CONFIG} each")
    by_name = {path.name: path for path in places}
    at = by_name.get(base) or Path(base)
    if not (at / CONFIG).is_file():
        raise InputError(
            f"--compare {base}: neither a run in {folder} nor a run folder; there are {', '.join(list(by_name)[:5])}"
            f"{', ...' if len(by_name) > 5 else ''}"
        )
    if at.resolve() not in {path.resolve() for path in places}:
        places.append(at)
    runs = [load_run(path) for path in places]
    return runs, next(run for run in runs if run.run_dir.resolve() == at.resolve())


def flat_config(run: RunData) -> dict[str, Any]:
    """Return the recipe as ``section.key -> value``, without the keys that do not make a variant."""
    found = {}
    for name, table in run.config.items():
        for key, value in table.items() if isinstance(table, dict) else [("", table)]:
            path = f"{name}.{key}" if key else name
            if path not in NOT_COMPARED:
                found[path] = value[:12] if path == "data.tokens_sha256" else value
    return found


def variants_of(runs: Sequence[RunData], base: RunData) -> list[Variant]:
    """Return the variants, best mean first, variants without a score last."""
    groups: dict[str, list[RunData]] = {}
    for run in runs:
        groups.setdefault(repr(sorted(flat_config(run).items())), []).append(run)
    own = flat_config(base)
    found = []
    for members in groups.values():
        other = flat_config(members[0])
        keys = sorted(key for key in {*own, *other} if own.get(key) != other.get(key))
        changed = {key: (own.get(key), other.get(key)) for key in keys}
        label = ", ".join(f"{key.rpartition('.')[2]} {_show(other.get(key))}" for key in keys)
        found.append(Variant(label or "base", changed, tuple(members), not changed))
    return sorted(found, key=lambda variant: (variant.mean is None, variant.mean or 0.0, variant.label))


def _show(value: Any) -> str:
    return "not set" if value in (None, "") else "true" if value is True else "false" if value is False else str(value)


def difference(variant: Variant, base: Variant) -> tuple[float, float | None] | None:
    """Return the variant's mean less the base's, and the half-width of its 95 % interval; None without both means.

    It uses Welch's standard error with the degrees of freedom of the smaller side, which errs to the wide side. The
    half-width is None if a side has only one run.
    """
    if variant.mean is None or base.mean is None:
        return None
    delta = variant.mean - base.mean
    sides = (variant.scores, base.scores)
    if min(map(len, sides)) < 2:
        return delta, None
    error = math.sqrt(sum(statistics.variance(side) / len(side) for side in sides))
    return delta, T_QUANTILES[min(len(T_QUANTILES), min(map(len, sides)) - 1) - 1] * error


def base_of(variants: Sequence[Variant]) -> Variant:
    return next(variant for variant in variants if variant.is_base)


def variant_row(variant: Variant, base: Variant) -> dict[str, Any]:
    """Return a variant's numbers.

    ``verdict`` is better, worse, even (the interval holds 0), unsure (too few runs) or base.
    """
    summaries = [summarize(run) for run in variant.runs]
    mean, half = mean_interval(variant.scores) if variant.scores else (None, None)
    against = difference(variant, base)
    delta, width = against if against is not None and not variant.is_base else (None, None)
    verdict = "base" if variant.is_base else "unscored" if delta is None else "unsure"
    if delta is not None and width is not None:
        verdict = "even" if abs(delta) <= width else "better" if delta < 0 else "worse"
    sizes = [summary["bytes"]["used"] for summary in summaries if summary["bytes"]["used"]]
    clocks = [seconds for summary in summaries if (seconds := summary["clock"]["seconds"])]
    steps = [max((int(row["step"]) for row in run.metrics), default=0) for run in variant.runs]
    return {
        "label": variant.label, "changed": {key: list(pair) for key, pair in variant.changed.items()},
        "mean": mean, "half_width": half, "scores": variant.scores, "delta": delta, "delta_half_width": width,
        "verdict": verdict, "bytes": max(sizes, default=None), "cap": summaries[0]["bytes"]["cap"],
        "train_s": statistics.fmean(clocks) if clocks else None,
        "steps": statistics.fmean(steps) if any(steps) else None,
        "runs": [
            {
                "name": run.name, "seed": _seed(run), "val_bpb": number(run.score.get("val_bpb")),
                "state": summary["state"],
            }
            for run, summary in zip(variant.runs, summaries, strict=True)
        ],
    }  # fmt: skip


def _seed(run: RunData) -> int | None:
    train = run.config.get("train")
    seed = train.get("seed") if isinstance(train, dict) else None
    return seed if isinstance(seed, int) else None
