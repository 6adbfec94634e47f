"""A run, told on one page: ``build_report`` writes it, ``load_run`` and ``summarize`` give what it tells as data."""

from golfcore.report.load import RunData, load_run
from golfcore.report.page import build_report
from golfcore.report.summary import summarize

__all__ = ["RunData", "build_report", "load_run", "summarize"]
