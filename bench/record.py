"""Append results of benchmarks to a CSV file: the number, the machine and the code.

A row holds one number. Rows are never changed or removed: a result that no longer holds is followed by a newer one.
"""

from __future__ import annotations

import csv
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from golfcore.machine import cores, cpu_model

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"
COLUMNS = ("date", "commit", "machine", "versions", "case", "backend", "metric", "value", "unit", "command")


@dataclass(frozen=True, slots=True)
class Result:
    """One number: ``case`` is the work, ``backend`` the program that did it, ``metric`` what was measured."""

    case: str
    backend: str
    metric: str
    value: float
    unit: str


def append(name: str, results: Iterable[Result], packages: Sequence[str] = ()) -> Path:
    """Add rows to ``bench/results/<name>.csv``, which is made if it does not exist.

    Args:
        name: the file's name without ``.csv``.
        results: the numbers, in the order they are to be read.
        packages: distributions whose versions matter, beside Python's own.
    """
    path = RESULTS / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists() or path.stat().st_size == 0
    same = (datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), commit(), machine(), versions(packages))
    with path.open("a", newline="", encoding="utf-8") as f:
        writer = csv.writer(f, lineterminator="\n")
        if is_new:
            writer.writerow(COLUMNS)
        for r in results:
            writer.writerow([*same, r.case, r.backend, r.metric, f"{r.value:.6g}", r.unit, command()])
    return path


def commit() -> str:
    """Return the checked-out commit, with ``+`` if tracked files other than results differ; ``unknown`` without git."""

    def git(*args: str) -> str:
        return subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!bench/results")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def machine() -> str:
    """Return the processor, and how many of its cores this process may use."""
    return f"{cpu_model()} x{cores()}"


def versions(packages: Sequence[str]) -> str:
    """Return ``python 3.12.1; tiktoken 0.9.0``: Python and the distributions, without those that are not installed."""
    found = [f"python {platform.python_version()}"]
    for name in packages:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return "; ".join(found)


def command() -> str:
    """Return the command line of this benchmark, with files by name alone, since folders differ between machines."""
    script, *args = sys.argv
    return shlex.join(["python", f"bench/{Path(script).name}", *(Path(a).name if "/" in a else a for a in args)])
