"""``golfcore report``: one page that tells a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from golfcore.cli import output


def report(run: Path, /, *, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Write a run's report.html and print where it is.

    Args:
        run: The run folder, as runs/q1, in whatever state the run is.
        json: Print the run's score, bytes, phases and verdicts as one JSON document, with the page's path.
    """
    from golfcore.report import build_report, load_run, summarize

    page = build_report(run)
    if json:
        output.print_json({**summarize(load_run(run)), "report": str(page)})
        return
    output.out.print(str(page), markup=False)
