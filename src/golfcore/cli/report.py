"""``golfcore report``: one page that tells a run, or several against a base."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from golfcore.cli import output
from golfcore.errors import UsageError


def report(
    run: Path,
    /,
    *,
    compare: Annotated[str, Parameter(negative="")] = "",
    out: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Write a run's report.html, or with --compare a folder's compare.html, and print where it is.

    Args:
        run: The run folder, as runs/q1, in whatever state the run is; with --compare a folder of runs, as a sweep's.
        compare: The base: a run in the folder by name, or any run folder. Runs that differ in the seed alone are one.
        out: Where the comparison goes instead of compare.html in the folder.
        json: Print the numbers as one JSON document, with the page's path.
    """
    if compare:
        from golfcore.report.compare import build_comparison, comparison

        page = build_comparison(run, compare, out)
        found = comparison(run, compare) if json else {}
    else:
        from golfcore.report import build_report, load_run, summarize

        if out is not None:
            raise UsageError("--output is for --compare: a run's report lies in its folder")
        page = build_report(run)
        found = summarize(load_run(run)) if json else {}
    if json:
        output.print_json({**found, "report": str(page)})
        return
    output.out.print(str(page), markup=False)
