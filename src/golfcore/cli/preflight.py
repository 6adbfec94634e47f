"""``golfcore preflight``: check a machine for a recipe before its hours are paid for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from golfcore.cli.output import out, print_json, styled
from golfcore.cli.run import Sets
from golfcore.ranges import FACTOR, Range

if TYPE_CHECKING:
    from golfcore.boxcheck.findings import Finding

STEPS = Range(1, 10_000)
STYLES = {"ok": "green", "failed": "red", "in part": "yellow", "not checked": "yellow", "not reached": "dim"}


def preflight(
    recipe: str,
    *,
    data: Path | None = None,
    set_: Sets = (),
    runs: Path = Path("runs"),
    steps: Annotated[int, Parameter(validator=STEPS)] = 30,
    reference_ms: Annotated[float, Parameter(validator=FACTOR)] = 0.0,
    go_on: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Check disk, data, GPUs, FlashAttention-3, compiler and links, then time steps; start it as the run, by torchrun.

    The first check that fails ends it. The exit code is 1 if one failed. Without a GPU it checks what it can, with the
    recipe cut to a size for the CPU, and says what it did not check.

    Parameters
    ----------
    recipe
        A recipe that comes with golfcore, or a .toml file.
    data
        A folder of tokens instead of the recipe's.
    runs
        The folder in which the run would be made.
    steps
        Number of steps to time.
    reference_ms
        Milliseconds that a step should take, such as those of a machine that was good; a tenth more passes. Default: on
        H100s the prediction of golfcore plan, within its spread.
    go_on
        Go on after a check that failed.
    json
        Print one JSON document instead of lines.
    """
    from golfcore.boxcheck.whole import check_box
    from golfcore.recipes import load_recipe

    config = load_recipe(recipe, environment=os.environ, sets=set_, data=data).config
    report = check_box(
        config, runs=runs, steps=steps, reference_ms=reference_ms, go_on=go_on, tell=_quiet if json else _show
    )
    if report.primary:
        if json:
            print_json(report.document())
        else:
            out.print(f"\n{report.verdict()}", markup=False)
            if report.failed:
                out.print("to ask for help, send the output of this command and of golfcore doctor, both with --json")
    return 1 if report.failed else 0


def _show(finding: Finding) -> None:
    out.print(
        styled(
            (f"{finding.state:<12}", STYLES[finding.state]), f"{finding.name:<16}{finding.detail}",
            (f"  {finding.seconds:.1f} s" if finding.seconds >= 0.05 else "", "dim"),
        )
    )  # fmt: skip
    if finding.remedy:
        out.print(styled((f"{'':<28}-> {finding.remedy}", "dim")))


def _quiet(finding: Finding) -> None:
    pass
