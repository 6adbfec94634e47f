"""A run, told on one page: ``build_report`` writes it, ``load_run`` and ``summarize`` give what it tells as data.

``compare`` tells several on one. What draws is imported when it draws: matplotlib takes a second.
"""

from __future__ import annotations

from pathlib import Path

from golfcore.report.load import RunData, load_run
from golfcore.report.summary import summarize

__all__ = ["RunData", "build_report", "load_run", "summarize"]


def build_report(run_dir: Path) -> Path:
    """Writes ``report.html`` into a run folder and returns its path; see ``golfcore.report.page``."""
    from golfcore.report import page

    return page.build_report(run_dir)
