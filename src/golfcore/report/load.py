"""Load a run folder in any state: a file that is absent or damaged becomes a note instead of an error."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from golfcore.config import from_toml
from golfcore.contest.logs import parse_log
from golfcore.errors import GolfError, InputError
from golfcore.paths import sha256_file
from golfcore.run_folder import ARTIFACT, CONFIG, ENV, LEDGER, LOG, METRICS, QUANTIZATION_ERRORS, SCORE
from golfcore.training.next_step import next_step
from golfcore.training.runlog import read_json, read_ledger, read_metrics

T = TypeVar("T")
NOT_WEIGHTS = ("code", "tokenizer")  # roles whose tensors are bytes of something else
MAX_LOG = 50_000_000  # characters of log.txt that are looked at


@dataclass(frozen=True, slots=True)
class RunData:
    """The content of a run folder. An absent part is empty; ``problems`` lists what could not be read and why."""

    run_dir: Path
    config: dict[str, Any] = field(default_factory=dict)
    config_text: str = ""
    metrics: list[dict[str, Any]] = field(default_factory=list)
    ledger: list[dict[str, Any]] = field(default_factory=list)
    env: dict[str, Any] = field(default_factory=dict)
    score: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, Any] = field(default_factory=dict)  # what quantization cost, by tensor
    log_events: list[dict[str, Any]] = field(default_factory=list)
    artifact: dict[str, Any] = field(default_factory=dict)  # see artifact_summary
    artifact_bytes: int | None = None
    artifact_sha256: str = ""
    problems: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.run_dir.resolve().name


def load_run(run_dir: Path) -> RunData:
    """Load every part of a run folder that exists.

    Raises:
        InputError: ``run_dir`` is not a folder, or holds none of a run's files.
    """
    known = (CONFIG, LOG, METRICS, ENV, LEDGER, ARTIFACT, SCORE)
    if not run_dir.is_dir():
        raise InputError(f"{run_dir}: no such run folder; {next_step(run_dir)}")
    if not any((run_dir / name).exists() for name in known):
        raise InputError(f"{run_dir}: not a run folder; expected at least one of {', '.join(known)}")
    problems: list[str] = []

    def part(read: Callable[[], T], empty: T) -> T:
        try:
            return read()
        except (GolfError, OSError, ValueError) as error:
            problems.append(" ".join(str(error).split()))
            return empty

    model = run_dir / ARTIFACT
    there = model.is_file()
    text = part(lambda: _read_text(run_dir / CONFIG), "")
    return RunData(
        run_dir=run_dir,
        config=part(lambda: _parse_config(text), {}),
        config_text=text,
        metrics=part(lambda: read_metrics(run_dir / METRICS), []),
        ledger=part(lambda: read_ledger(run_dir / LEDGER), []),
        env=part(lambda: read_json(run_dir / ENV, dict), {}),
        score=part(lambda: read_json(run_dir / SCORE, dict), {}),
        errors=part(lambda: read_json(run_dir / QUANTIZATION_ERRORS, dict), {}),
        log_events=part(lambda: parse_log(_read_text(run_dir / LOG)), []),
        artifact=part(lambda: artifact_summary(model), {}) if there else {},
        artifact_bytes=part(lambda: model.stat().st_size, None) if there else None,
        artifact_sha256=part(lambda: sha256_file(model), "") if there else "",
        problems=tuple(problems),
    )


def _read_text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as f:  # editors of Windows write a byte order mark
            return f.read(MAX_LOG)
    except FileNotFoundError:
        return ""


def _parse_config(text: str) -> dict[str, Any]:
    try:
        return from_toml(text)
    except ValueError as error:
        raise InputError(f"{CONFIG}: not TOML ({error})") from error


def artifact_summary(path: Path) -> dict[str, Any]:
    """Reduce ``golfcore.artifact.inspect.summary`` to the rows of the page; nothing else here knows its form.

    Returns:
        ``total`` bytes, and ``roles``: rows of ``role``, ``bytes`` and, if the role holds weights, ``params``,
        ``bits_per_weight`` and ``order0_bits`` (else None). Framing is the last role.
    """
    from golfcore.artifact.inspect import summary

    found = summary(path)
    roles = []
    for row in found["roles"]:
        weights = row["role"] not in NOT_WEIGHTS
        roles.append(
            {
                "role": row["role"],
                "bytes": row["coded"],
                "params": row["weights"] if weights else None,
                "bits_per_weight": row["bits_per_weight"] if weights else None,
                "order0_bits": row["order0_bits"] if weights else None,
            }
        )
    framing = {"role": "framing", "bytes": found["bytes"]["framing"]}
    blank = {"params": None, "bits_per_weight": None, "order0_bits": None}
    return {"total": found["bytes"]["file"], "roles": [*roles, framing | blank]}


def number(value: object) -> float | None:
    """Return ``value`` if it is a finite number, else None: a JSON file may hold anything under a key."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer beyond a float's range
        return None
