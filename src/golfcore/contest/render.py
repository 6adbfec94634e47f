"""Write a report as JSON, as the draft of a comment, and as SARIF; nothing of an entry is markup there."""

from __future__ import annotations

import html
import json
import re
from typing import Any

from golfcore.contest.check import Report
from golfcore.contest.findings import Finding, clean, shorten
from golfcore.contest.ruleset import Severity

MAX_TEXT = 600
LEVELS: dict[Severity, str] = {
    "BLOCK": "error",
    "LIKELY": "error",
    "REVIEW": "warning",
    "FORMAT": "warning",
    "INFO": "note",
}
VERDICTS = {
    "ready": "Nothing was found that speaks against the entry.",
    "needs-evidence": "Something needs a look by a person, or more evidence.",
    "needs-fix": "Something has to be mended before the entry can be judged.",
    "likely-invalid": "Lines look like a technique that the rules exclude; a person has to look at them.",
    "unreadable": "There was too little to read.",
}
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+.!|~>-])")


def as_json(report: Report) -> dict[str, Any]:
    """Return a report as one JSON document."""
    document: dict[str, Any] = safe(
        {
            "pr": report.pr,
            "folder": str(report.folder),
            "rules": report.rules.name,
            "track": report.track,
            "verdict": report.verdict,
            "claimed": report.claimed,
            "recomputed": report.recomputed,
            "flags": [
                {
                    "rule": f.rule,
                    "severity": f.severity,
                    "confidence": round(f.confidence, 2),
                    "kind": f.kind,
                    "file": f.file,
                    "line": f.line,
                    "lines": list(f.lines),
                    "explanation": f.explanation,
                    "fix": f.fix,
                }
                for f in report.findings
            ],
            "lineage": report.lineage,
            "stats": report.stats,
            "not_checked": report.not_checked,
        }
    )
    return document


def safe(value: Any, depth: int = 0) -> Any:
    """Return plain values whose strings are safe to print, and no deeper than JSON readers go."""
    if depth > 12:
        return None
    if isinstance(value, str):
        return clean(value, MAX_TEXT)
    if isinstance(value, dict):
        return {clean(str(key), 100): safe(part, depth + 1) for key, part in list(value.items())[:200]}
    if isinstance(value, (list, tuple)):
        return [safe(part, depth + 1) for part in value[:500]]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value if abs(value) < 1e300 else None
    return value if isinstance(value, bool) or value is None else clean(str(value), MAX_TEXT)


def as_markdown(report: Report) -> str:
    """Return the draft of a comment on an entry."""
    lines = [
        f"**Verdict: {report.verdict}.** {VERDICTS[report.verdict]}",
        "",
        f"Rules: {markdown(report.rules.title)}.",
    ]
    if report.track:
        lines[-1] += f" Track: {markdown(report.track)}."
    shown = [f for f in report.findings if f.severity != "INFO"]
    if shown:
        lines += ["", "| severity | rule | where | what | what to do |", "| --- | --- | --- | --- | --- |"]
        lines += [
            f"| {f.severity} | {' | '.join(markdown(text) for text in (f.rule, place(f), f.explanation, f.fix))} |"
            for f in shown
        ]
    for finding in shown:
        if finding.lines and finding.severity in ("BLOCK", "LIKELY", "REVIEW"):
            lines += ["", f"{markdown(finding.rule)}, {markdown(place(finding))}:", "", *fenced(finding.lines)]
    lines += ["", "Not checked:", "", *(f"- {markdown(text)}" for text in report.not_checked)]
    return "\n".join(lines) + "\n"


def markdown(text: str) -> str:
    """Return text in which nothing is markup: no HTML, no Markdown, no mention of a person."""
    return html.escape(_MARKDOWN.sub(r"\\\1", clean(text, MAX_TEXT)), quote=False).replace("@", "@\N{ZERO WIDTH SPACE}")


def fenced(lines: tuple[str, ...]) -> list[str]:
    """Return lines as a block of code that they cannot end."""
    longest = max((len(run) for line in lines for run in re.findall(r"`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return [fence, *(clean(line) for line in lines), fence]


def place(finding: Finding) -> str:
    """Return where a finding is: ``train_gpt.py:12``."""
    return f"{finding.file}:{finding.line}" if finding.line else finding.file


def as_sarif(report: Report) -> str:
    """Return a report in SARIF 2.1.0, which editors and code hosts show beside the lines."""
    used = {finding.rule for finding in report.findings}
    known = {rule.id: rule for rule in report.rules.rules if rule.id in used}
    rules = [
        {
            "id": name,
            "shortDescription": {"text": known[name].title if name in known else "The package of an entry"},
            "fullDescription": {"text": known[name].text if name in known else "Files, names and formats."},
        }
        for name in sorted(used)
    ]
    results = [
        {
            "ruleId": f.rule,
            "level": LEVELS[f.severity],
            "rank": round(100 * f.confidence),
            "message": {"text": safe(f"{f.explanation} {f.fix}")},
            "properties": {"severity": f.severity, "kind": f.kind},
            **({"locations": [_location(f)]} if f.file else {}),
        }
        for f in report.findings
    ]
    driver = {"name": "golfcore check", "rules": rules}
    run = {"tool": {"driver": driver}, "results": results, "properties": {"verdict": report.verdict}}
    document = {"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0", "runs": [run]}
    return json.dumps(document, ensure_ascii=False, indent=1)


def _location(finding: Finding) -> dict[str, Any]:
    from urllib.parse import quote

    region: dict[str, Any] = {"startLine": max(1, finding.line)}
    if finding.lines:
        region["snippet"] = {"text": shorten(finding.lines[0], MAX_TEXT)}
    return {"physicalLocation": {"artifactLocation": {"uri": quote(clean(finding.file))}, "region": region}}
