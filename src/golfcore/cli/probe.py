"""``golfcore probe``: try whether a scorer, ours or a stranger's, can be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from rich.table import Table

from golfcore.cli.options import Tokens
from golfcore.cli.output import err, out, plain_table, print_json, print_table, progress
from golfcore.cli.run import Texts
from golfcore.errors import UsageError
from golfcore.ranges import SECONDS


def probe(
    artifact: Path | None = None,
    *,
    text: Texts = (),
    scorer: Path | None = None,
    tokens: Tokens = 0,
    budget: Annotated[float | None, Parameter(validator=SECONDS)] = None,
    adapt: Literal["none", "mix"] | None = None,
    json: bool = False,
) -> int:
    """Probe a packed model, or with --scorer a stranger's scorer, for the ways to cheat; exit 1 if one is found.

    The probes: future-flip, target-flip, probability mass, ledger replay, uniform noise, denominator, fresh process
    and phase timing. A table says what each measured, what a pass proves, and what it leaves open.

    Parameters
    ----------
    artifact
        A .golf file; with --scorer any file that the scorer reads, which is copied beside it.
    scorer
        A Python file that defines vocab_size and score(tokens). It is executed, in a process of its own in an empty
        folder and without network where the system allows; it could still read this machine's files.
    tokens
        Tokens of the text's beginning that are probed; default: two windows, or 512 with --scorer.
    budget
        Seconds that the evaluation of the whole text may take, 0 for no limit; default: as the artifact says, or 600.
    adapt
        mix or none; default: as the artifact says.
    json
        Print one JSON document instead of a table.
    """
    if not text:
        raise UsageError("give the text to probe on: --text FILE...")
    if scorer is not None:
        if adapt is not None:
            raise UsageError("--adapt is for packed models: a --scorer scores as it is written")
        from golfcore.pipeline.probe import probe_file

        err.print(f"{scorer} is executed now, in a process of its own", markup=False, soft_wrap=True)
        beside = [] if artifact is None else [artifact]
        with progress("probe") as tick:
            result = probe_file(scorer, list(text), beside=beside, tokens=tokens, budget_s=budget, tick=tick)
    else:
        if artifact is None:
            raise UsageError("give what to probe: a .golf file, or --scorer FILE.py")
        from golfcore.pipeline.probe import probe_artifact
        from golfcore.ranks.world import join_world

        with join_world() as world, progress("probe") as tick:
            result = probe_artifact(
                artifact, list(text), tokens=tokens, budget_s=budget, adapt=adapt, device=world.device, tick=tick
            )
    if json:
        print_json(result)
    else:
        print_table(_table(result))
        _print_notes(result)
    return 0 if result["passed"] else 1


VERDICTS = {True: "passed", False: "FAILED", None: "not made"}


def _table(result: dict[str, Any]) -> Table:
    table = plain_table("probe", "result", "figure", "at most", "unit", "first token", right=("figure", "at most"))
    for row in result["probes"]:
        table.add_row(
            row["name"], VERDICTS[row["passed"]], _number(row["figure"]), _number(row["tolerance"]), row["unit"],
            "" if row["first"] is None else f"{row['first']:,}",
        )  # fmt: skip
    return table


def _print_notes(result: dict[str, Any]) -> None:
    for row in result["probes"]:
        if row["found"]:
            out.print(f"{row['name']}: {row['found']}", markup=False)
    for row in result["probes"]:
        if row["open"] and row["passed"] is not False:
            out.print(f"not proven by {row['name']}: {row['open']}", markup=False)
    verdict = "all probes passed" if result["passed"] else "at least one probe failed: this score is no evidence"
    out.print(f"{result['subject']}: {verdict}, on {result['tokens']:,} tokens", markup=False)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
