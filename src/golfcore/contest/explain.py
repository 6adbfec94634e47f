"""Explain a rule: its text, why it is one, the smallest program that breaks it, and its honest twin."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from golfcore.contest.ruleset import Rule, RuleSet

EXAMPLES = Path(__file__).parent / "examples.toml"


@dataclass(frozen=True, slots=True)
class Explanation:
    """A rule with its reason and two programs; the texts are empty for rules that no program breaks by itself."""

    rule: Rule
    why: str = ""
    breaks: str = ""
    honest: str = ""


@cache
def examples() -> dict[str, dict[str, str]]:
    """Return why, breaks and honest of each invalid technique, by its id."""
    with EXAMPLES.open("rb") as file:
        return tomllib.load(file)


def explain(rules: RuleSet, name: str) -> Explanation:
    """Return what there is to know of a rule.

    Raises:
        UsageError: the rule set has no such rule.
    """
    rule = rules.rule(name)
    found = examples().get(rule.id, {})
    return Explanation(
        rule, found.get("why", ""), found.get("breaks", "").strip("\n"), found.get("honest", "").strip("\n")
    )
