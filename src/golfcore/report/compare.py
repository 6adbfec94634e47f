"""Compare several runs on one page, best first: their scores with that of a base, and their curves in one drawing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from golfcore.paths import atomic_write
from golfcore.report.overlay import context
from golfcore.report.page import render
from golfcore.report.variants import base_of, load_runs, variant_row, variants_of

PAGE = "compare.html"


def comparison(folder: Path, base_name: str) -> dict[str, Any]:
    """Return the content of the page as JSON values: one row per variant, best first, and the runs without a score."""
    runs, base_run = load_runs(folder, base_name)
    variants = variants_of(runs, base_run)
    return {
        "folder": str(folder), "base": base_run.name, "runs": len(runs),
        "variants": [variant_row(variant, base_of(variants)) for variant in variants],
    }  # fmt: skip


def build_comparison(folder: Path, base_name: str, out: Path | None = None) -> Path:
    """Write the page, by default ``compare.html`` in ``folder``, and return its path.

    Raises:
        InputError: as for ``load_runs``, or the page cannot be written.
    """
    runs, base_run = load_runs(folder, base_name)
    variants = variants_of(runs, base_run)
    rows = [variant_row(variant, base_of(variants)) for variant in variants]
    path = out or folder / PAGE
    with atomic_write(path) as f:
        f.write(render("compare.html", context(folder, base_run, variants, rows)))
    return path
