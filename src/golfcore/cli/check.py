"""Check the entry of a contest before it is filed, or one that was."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from golfcore.cli.output import out, plain_table, print_json, print_table
from golfcore.errors import UsageError

if TYPE_CHECKING:
    from golfcore.contest.check import Report
    from golfcore.contest.ruleset import RuleSet


def check(
    folder: Path | None = None,
    *,
    rules: str = "",
    vs: Annotated[Sequence[str], Parameter(negative=(), consume_multiple=True)] = (),
    json: bool = False,
    markdown: bool = False,
    sarif: bool = False,
    explain: str = "",
) -> int:
    """Check the folder of a contest entry against the rules; nothing of it is executed.

    Reads submission.json, README, logs and programs, expands packed code, follows the data through the programs, and
    reports findings with their lines. Exit code 1 if a finding has severity BLOCK or LIKELY.

    Args:
        folder: The folder of the entry, with train_gpt.py in it.
        rules: A rule set, such as parameter_golf_readme, or a TOML file; parameter_golf_audit if none is named.
        vs: Logs, entries or a loss in nats per token that the entry is to beat, for the policies of the rules.
        markdown: Print the draft of a comment.
        sarif: Print SARIF, which editors and code hosts show beside the lines.
        explain: Explain a rule, such as I7, instead of checking an entry.
    """
    from golfcore.contest.ruleset import DEFAULT, load_rules

    chosen = load_rules(rules or DEFAULT)
    if explain:
        return _explain(chosen, explain, json=json)
    if folder is None:
        raise UsageError("golfcore check: which entry? Name its folder, or a rule with --explain I7")
    if json + markdown + sarif > 1:
        raise UsageError("golfcore check: --json, --markdown and --sarif each print one document; give one of them")
    from golfcore.contest.check import check_entry
    from golfcore.contest.render import as_json, as_markdown, as_sarif

    report = check_entry(folder, chosen, list(vs))
    if json:
        print_json(as_json(report))
    elif markdown:
        out.print(as_markdown(report), markup=False, end="")
    elif sarif:
        out.print(as_sarif(report), markup=False)
    else:
        _show(report)
    return int(any(finding.severity in ("BLOCK", "LIKELY") for finding in report.findings))


def _show(report: Report) -> None:
    """Print a report as a table, the lines of the findings, the verdict and what was not checked."""
    from rich.text import Text

    from golfcore.contest.findings import clean
    from golfcore.contest.render import VERDICTS, place

    table = plain_table("severity", "rule", "sure", "where", "what", right=("sure",))
    for finding in report.findings:
        table.add_row(
            finding.severity,
            clean(finding.rule),
            f"{finding.confidence:.0%}",
            Text(clean(place(finding))),
            Text(clean(finding.explanation, 600)),
        )
    print_table(table)
    for finding in report.findings:
        if finding.severity in ("BLOCK", "LIKELY", "REVIEW") and finding.lines:
            out.print(f"\n{finding.rule}  {clean(place(finding))}", markup=False)
            for line in finding.lines:
                out.print(f"    {clean(line)}", markup=False)
            out.print(f"  To do: {clean(finding.fix, 600)}", markup=False)
    out.print(f"\nVerdict: {report.verdict}. {VERDICTS[report.verdict]}", markup=False)
    out.print("Not checked:", markup=False)
    for text in report.not_checked:
        out.print(f"- {clean(text, 600)}", markup=False)


def _explain(rules: RuleSet, name: str, *, json: bool) -> int:
    from golfcore.contest.explain import explain

    found = explain(rules, name)
    rule = found.rule
    if json:
        print_json(
            {
                "id": rule.id,
                "title": rule.title,
                "text": rule.text,
                "source": rule.source,
                "severity": rule.severity,
                "check": rule.check,
                "why": found.why,
                "breaks": found.breaks,
                "honest": found.honest,
            }
        )
        return 0
    parts = [f"{rule.id}: {rule.title}", "", rule.text]
    if found.why:
        parts += ["", f"Why: {found.why}"]
    parts += ["", f"Source: {rule.source}. Highest severity: {rule.severity}. Decided by: {rule.check}."]
    if found.breaks:
        parts += ["", "Breaks the rule:", "", found.breaks, "", "Its honest twin:", "", found.honest]
    out.print("\n".join(parts), markup=False)
    return 0
