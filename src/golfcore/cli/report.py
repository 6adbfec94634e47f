"""``golfcore report``: write a page on a run, or on several runs compared with a base."""

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
        run: The run's folder, such as runs/q1, in any state; with --compare a folder of runs, such as that of a sweep.
        compare: The base: the name of a run in the folder, or any run's folder. Runs that differ only in the seed count
            as one variant.
        out: File of the comparison; default: compare.html in the folder.
        json: Print the numbers and the page's path as one JSON document.
    """
    if compare:
        from golfcore.report.compare import build_comparison, comparison

        page = build_comparison(run, compare, out)
        found = comparison(run, compare) if json else {}
    else:
        from golfcore.report import build_report, load_run, summarize

        if out is not None:
            raise UsageError("--output is for --compare: the report of a run goes into its folder")
        page = build_report(run)
        found = summarize(load_run(run)) if json else {}
    if json:
        output.print_json({**found, "report": str(page)})
        return
    output.out.print(str(page), markup=False)
