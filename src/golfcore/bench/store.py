"""Append bench results to CSV files, and compare a run with an earlier one."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from golfcore.bench.harness import Ceilings, Row
from golfcore.errors import FormatError, InputError, UsageError
from golfcore.ranges import Range

ABOUT = ("date", "commit", "cpu", "cores", "threads", "isa", "torch", "bandwidth_gb_s", "gemm_gflop_s")
SAVED_US = Range(0, 10**12, whole=False, above=True)
COLUMNS = (*ABOUT, *(field.name for field in fields(Row)))


def path_of(folder: Path, name: str) -> Path:
    """Return ``<folder>/<name>.csv``.

    Raises:
        UsageError: ``name`` is not a plain name.
    """
    if not re.fullmatch(r"[\w.-]+", name) or name.startswith("."):
        raise UsageError(f"{name!r}: expected a plain name such as before or avx512; the file is {folder}/<name>.csv")
    return folder / f"{name}.csv"


def about(environment: Mapping[str, Any], ceilings: Ceilings) -> dict[str, Any]:
    """Return metadata saved with every row: date, commit, CPU, cores, threads, instruction set, torch, bandwidth."""
    return {
        "date": environment["started"],
        "commit": environment["commit"] + ("+" if environment["dirty"] else ""),
        "cpu": environment["cpu"],
        "cores": environment["cores"],
        "threads": environment["threads"],
        "isa": environment["isa"],
        "torch": environment["torch"],
        "bandwidth_gb_s": round(ceilings.bandwidth / 1e9, 2),
        "gemm_gflop_s": " ".join(f"{name} {rate / 1e9:.0f}" for name, rate in ceilings.gemm.items()),
    }


def save(path: Path, header: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """Append ``rows``; earlier rows stay as they are.

    Raises:
        FormatError: the file has other columns.
        InputError: the file cannot be written.
    """
    if path.exists():
        read(path)
    append(path, header, rows)


def append(path: Path, header: Mapping[str, Any], rows: Sequence[Any]) -> None:
    """Append rows of one dataclass, with any fields; earlier rows stay.

    Raises:
        FormatError: the file has other columns.
        InputError: the file cannot be written.
    """
    columns = [*header, *(field.name for field in fields(rows[0]))]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+", newline="", encoding="utf-8") as f:
            f.seek(0)
            first = f.readline()
            if first and first.strip() != ",".join(columns):
                raise FormatError(f"{path}: its columns are not those of this bench; use another name")
            writer = csv.DictWriter(f, columns, lineterminator="\n")
            if not first:
                writer.writeheader()
            for row in rows:
                numbers = {k: round(v, 6) if isinstance(v, float) else v for k, v in asdict(row).items()}
                writer.writerow({**header, **numbers})
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


def read(path: Path) -> list[dict[str, str]]:
    """Read every row, oldest first.

    Raises:
        InputError: there is no such file.
        FormatError: the columns are not those of a bench.
    """
    try:
        with path.open(newline="", encoding="utf-8") as f:
            reader = csv.DictReader(f)
            rows, columns = list(reader), tuple(reader.fieldnames or ())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; save a run first with --save {path.stem}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise FormatError(f"{path}: not a table of numbers ({error}); move it away or use another name") from error
    if columns != COLUMNS:
        raise FormatError(f"{path}: its columns are not those of a bench result; move it away or use another name")
    return rows


@dataclass(frozen=True)
class Change:
    """The comparison of one row with the last saved row of the same case, dtype, shape and backend.

    ``verdict`` is faster or slower only if the ranges p20..p80 do not overlap.
    """

    case: str
    dtype: str
    shape: str
    backend: str
    before_us: float
    after_us: float
    speedup: float
    verdict: str


def compare(before: Sequence[Mapping[str, str]], rows: Sequence[Row]) -> list[Change]:
    """Compare rows with the last saved ones; rows that were never saved are left out.

    Raises:
        FormatError: a saved time is not a number.
    """
    known = {(r["case"], r["dtype"], r["shape"], r["backend"]): r for r in before}
    changes = []
    for row in rows:
        old = known.get((row.case, row.dtype, row.shape, row.backend))
        if old is None:
            continue
        try:
            p20, p50, p80 = (float(old[name]) for name in ("p20_us", "p50_us", "p80_us"))
        except (ValueError, TypeError) as error:
            raise FormatError(f"{row.case}: a saved time is not a number ({error})") from error
        for time_us in (p20, p50, p80):
            SAVED_US.check(f"{row.case}: a saved time in us", time_us, FormatError)
        verdict = "faster" if row.p80_us < p20 else "slower" if row.p20_us > p80 else "same"
        who = (row.case, row.dtype, row.shape, row.backend)
        changes.append(Change(*who, p50, row.p50_us, round(p50 / row.p50_us, 4), verdict))
    return changes
