"""Report a run on one HTML page (``build_report``), or its numbers as data (``load_run``, ``summarize``).

``compare`` reports several runs on one page. Modules that draw are imported when they draw, since matplotlib takes a
second.
"""

from __future__ import annotations

from pathlib import Path

from golfcore.report.load import RunData, load_run
from golfcore.report.summary import summarize

__all__ = ["RunData", "build_report", "load_run", "summarize"]


def build_report(run_dir: Path) -> Path:
    """Write ``report.html`` into a run folder and return its path; see ``golfcore.report.page``."""
    from golfcore.report import page

    return page.build_report(run_dir)
