"""Run checks one after the other on all ranks; the first that fails ends them, as time is money there.

A check is a function that every rank calls. What it found is gathered: a check has failed if it failed on any rank, and
then the finding names the rank. ``Failed`` carries what to do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from golfcore.errors import GolfError
from golfcore.machine import one_line
from golfcore.ranks.world import World

State = Literal["ok", "failed", "in part", "not checked", "not reached"]
CHECKED: tuple[State, ...] = ("ok", "failed")


class Failed(GolfError):
    """A check that failed: what is wrong, and what to do."""

    def __init__(self, text: str, remedy: str) -> None:
        super().__init__(text)
        self.remedy = remedy


class NotHere(Exception):
    """Raised by a check that this machine cannot make, with the reason."""


@dataclass(frozen=True, slots=True)
class Found:
    """The result of a check that passed on one rank.

    Attributes:
        detail: a text for people.
        values: numbers for programs, and for the comparison of the ranks.
        missing: what could not be checked here; empty if all was.
    """

    detail: str
    values: dict[str, float] = field(default_factory=dict)
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check over all ranks; ``remedy`` is what to do if it failed, ``seconds`` those of the slowest."""

    name: str
    state: State
    detail: str
    remedy: str = ""
    seconds: float = 0.0
    values: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Check:
    """A check.

    Attributes:
        name: a word for the table.
        probe: called on every rank; raises Failed or another GolfError if it fails, NotHere if it cannot be made.
        remedy: what to do about a GolfError that says nothing of it.
        compare: gets what was found on all ranks if it passed on each; raises Failed if a rank falls behind.
        together: whether the ranks work together inside; then only an error that all of them raise is a failed check.
    """

    name: str
    probe: Callable[[], Found]
    remedy: str = ""
    compare: Callable[[Sequence[Found]], None] | None = None
    together: bool = False


def run_checks(
    world: World,
    checks: Sequence[Check],
    *,
    go_on: bool = False,
    tell: Callable[[Finding], None] = lambda finding: None,
) -> list[Finding]:
    """Run the checks in order and return one finding each; after one that failed the rest is not reached.

    Args:
        world: the ranks, which all call this.
        checks: the checks.
        go_on: whether to go on after a check that failed.
        tell: called with each finding as soon as it is there.
    """
    findings: list[Finding] = []
    failed = ""
    for check in checks:
        if failed and not go_on:
            finding = Finding(check.name, "not reached", f"left out after {failed} failed")
        else:
            world.heartbeat(f"the check of {check.name}")
            finding = _judged(world.gather(_tried(check, world)), check)
        failed = failed or (check.name if finding.state == "failed" else "")
        findings.append(finding)
        tell(finding)
    return findings


def _tried(check: Check, world: World) -> tuple[Finding, Found | None]:
    """Make a check on this rank."""
    start = time.monotonic()
    found: Found | None = None
    try:
        found = check.probe()
        state: State = "in part" if found.missing else "ok"
        text = f"{found.detail}; not checked: {found.missing}" if found.missing else found.detail
        finding = Finding(check.name, state, text, values=found.values)
    except NotHere as error:
        finding = Finding(check.name, "not checked", str(error))
    except GolfError as error:
        if check.together and world.size > 1 and not (isinstance(error, Failed) or error.everywhere):
            raise  # the other ranks wait inside of the check: the end of this process ends theirs
        finding = Finding(check.name, "failed", one_line(error), getattr(error, "remedy", check.remedy))
    return replace(finding, seconds=time.monotonic() - start), found


def _judged(ranks: Sequence[tuple[Finding, Found | None]], check: Check) -> Finding:
    """Return the finding over all ranks: the first failure, with its rank, or that of rank 0."""
    slowest = max(finding.seconds for finding, _ in ranks)
    failed = [(rank, finding) for rank, (finding, _) in enumerate(ranks) if finding.state == "failed"]
    if failed:
        finding = failed[0][1]
        alike = len(failed) == len(ranks) and all(other.detail == finding.detail for _, other in failed)
        numbers = ", ".join(str(rank) for rank, _ in failed[:8])
        where = "" if alike else f"rank{'s' * (len(failed) > 1)} {numbers} of {len(ranks)}: "
        return replace(finding, detail=where + finding.detail, seconds=slowest)
    finding = replace(ranks[0][0], seconds=slowest)
    founds = [found for _, found in ranks if found is not None]
    if check.compare is not None and len(founds) == len(ranks):
        try:
            check.compare(founds)
        except Failed as error:
            return replace(finding, state="failed", detail=str(error), remedy=error.remedy)
    return finding
