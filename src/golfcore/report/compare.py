"""Several runs on one page, best first: their scores against a base's, and their curves over one another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from golfcore.paths import atomic_write
from golfcore.report.overlay import context
from golfcore.report.page import render
from golfcore.report.variants import base_of, load_runs, variant_row, variants_of

PAGE = "compare.html"


def comparison(folder: Path, base_name: str) -> dict[str, Any]:
    """What the page tells, as a JSON-able document: a row a variant, best first, and the runs without a score."""
    runs, base_run = load_runs(folder, base_name)
    variants = variants_of(runs, base_run)
    return {
        "folder": str(folder), "base": base_run.name, "runs": len(runs),
        "variants": [variant_row(variant, base_of(variants)) for variant in variants],
    }  # fmt: skip


def build_comparison(folder: Path, base_name: str, out: Path | None = None) -> Path:
    """Writes the page, by default ``compare.html`` in ``folder``, and returns its path.

    Raises:
        InputError: as of ``load_runs``, or the page cannot be written.
    """
    runs, base_run = load_runs(folder, base_name)
    variants = variants_of(runs, base_run)
    rows = [variant_row(variant, base_of(variants)) for variant in variants]
    path = out or folder / PAGE
    with atomic_write(path) as f:
        f.write(render("compare.html", context(folder, base_run, variants, rows)))
    return path
