"""Findings of a check: what rule, how sure, in which lines, why, and how to mend it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from golfcore.contest.ruleset import SEVERITIES, RuleSet, Severity

Kind = Literal["static", "log", "meta"]
MAX_LINES = 6
MAX_LINE = 200
# C0 and C1 control characters, and those that reorder text: a terminal obeys them, and a reader is misled.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding: ``lines`` are the lines of ``file`` that it rests on, ``confidence`` is between 0 and 1."""

    rule: str
    severity: Severity
    explanation: str
    fix: str
    kind: Kind = "meta"
    confidence: float = 1.0
    file: str = ""
    line: int = 0
    lines: tuple[str, ...] = ()


@dataclass
class Notes:
    """The findings of a check in the making, and what could not be checked."""

    rules: RuleSet
    findings: list[Finding] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)

    def add(self, finding: Finding) -> None:
        """Add a finding, no more severe than its rule allows, unless the same one is there."""
        known = {rule.id: rule for rule in self.rules.rules}
        rule = known.get(finding.rule)
        if rule is None and finding.severity not in ("FORMAT", "INFO"):
            return  # a contest without this rule does not ask
        if rule is not None and finding.severity in ("BLOCK", "LIKELY", "REVIEW"):
            allowed = max(SEVERITIES.index(rule.severity), SEVERITIES.index(finding.severity))
            finding = dataclasses.replace(finding, severity=SEVERITIES[allowed])
        finding = dataclasses.replace(finding, lines=tuple(clean(line) for line in finding.lines[:MAX_LINES]))
        same = (finding.rule, finding.file, finding.line, finding.explanation)
        if all((f.rule, f.file, f.line, f.explanation) != same for f in self.findings):
            self.findings.append(finding)

    def skip(self, what: str) -> None:
        """Note something that was not checked, and why."""
        if what not in self.not_checked:
            self.not_checked.append(what)


def clean(text: str, limit: int = MAX_LINE) -> str:
    """Return text that is safe to print: at most ``limit`` characters, none of them control or reordering ones."""
    return shorten(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\t", "    ")), limit)


def shorten(text: str, limit: int) -> str:
    """Return at most ``limit`` characters of a text, the last of them an ellipsis if it was cut."""
    return text if len(text) <= limit else text[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"


def sorted_findings(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings by severity, then confidence, then place."""
    return sorted(findings, key=lambda f: (SEVERITIES.index(f.severity), -f.confidence, f.rule, f.file, f.line))
