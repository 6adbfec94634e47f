"""Check an entry of a contest: read it, follow its programs, compare its claims; execute nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from golfcore.contest.checks.claims import check_claims
from golfcore.contest.checks.clock import check_clock
from golfcore.contest.checks.context import Context, gather
from golfcore.contest.checks.imports import check_imports
from golfcore.contest.checks.package import check_package
from golfcore.contest.checks.seeds import check_seeds
from golfcore.contest.checks.sizes import check_sizes
from golfcore.contest.checks.validation import check_validation
from golfcore.contest.findings import Finding, clean, sorted_findings
from golfcore.contest.folder import read_entry
from golfcore.contest.log_facts import seed_of
from golfcore.contest.ruleset import RuleSet, load_rules
from golfcore.contest.runs import read_values
from golfcore.contest.significance import compare, passes, seeds_needed
from golfcore.contest.sources import read_programs
from golfcore.contest.techniques.hypotheses import check_programs
from golfcore.contest.techniques.native import check_native, check_shell
from golfcore.contest.techniques.patterns import check_patterns

ALWAYS_OPEN = (
    "whether probabilities sum to 1, and whether later tokens move earlier losses: needs a run with probes",
    "whether documents are in both splits: needs the shards",
    "whether the score can be repeated: needs the hardware",
    "hardware, network and files during the run: needs the run",
    "order of filing and lineage: needs the history of the repository",
)


@dataclass
class Report:
    """The result of a check. ``verdict`` is one of ready, needs-evidence, needs-fix, likely-invalid, unreadable."""

    folder: Path
    rules: RuleSet
    track: str
    claimed: dict[str, Any]
    recomputed: dict[str, Any]
    findings: list[Finding]
    not_checked: list[str] = field(default_factory=list)
    pr: int | None = None  # of the entry, if submission.json names it
    lineage: list[str] = field(default_factory=list)  # what the entry says it is based on
    stats: list[dict[str, Any]] = field(default_factory=list)  # each policy, against what is to be beaten

    @property
    def verdict(self) -> str:
        """The verdict, from the most severe findings."""
        found = {finding.severity for finding in self.findings}
        if found & {"BLOCK", "LIKELY"}:
            return (
                "likely-invalid"
                if any(
                    f.rule.startswith("I") and f.rule not in _FIXABLE and f.severity == "LIKELY" for f in self.findings
                )
                else "needs-fix"
            )
        if not self.recomputed and not self.claimed:
            return "unreadable"
        if "FORMAT" in found:
            return "needs-fix"
        return "needs-evidence" if "REVIEW" in found else "ready"


_PR = ("pr", "pr_number", "pull_request")
_BASES = ("base_pr", "based_on", "comparison_baseline_pr", "implementation_lineage_pr", "lineage", "supports_pr")
_FIXABLE = ("I16", "I19")


def check_entry(folder: Path, rules: RuleSet | None = None, beat: Sequence[str] = ()) -> Report:
    """Check the folder of an entry against the rules of a contest.

    Args:
        folder: The folder of the entry.
        rules: The rules; those of ``DEFAULT`` if None.
        beat: Logs, entries or a loss in nats per token that the entry is to beat; none leaves the statistics out.

    Raises:
        InputError: there is no entry in the folder, or ``beat`` cannot be read or compared.
        UsageError: there are several.
    """
    rules = rules or load_rules()
    entry = read_entry(folder)
    context = gather(entry, rules)
    programs = read_programs(entry, context.supporting or context.logs)
    for finding in programs.findings:
        context.notes.add(finding)
    for text in programs.not_checked:
        context.notes.skip(text)
    check_package(context)
    check_sizes(context, programs.expanded)
    check_clock(context)
    check_claims(context)
    check_validation(context)
    check_seeds(context)
    check_imports(context, programs)
    traces = check_programs(context, programs)
    check_patterns(context, programs, traces)
    check_native(context, programs)
    check_shell(context, programs)
    stats = _statistics(context, beat) if beat else []
    if not beat:
        context.notes.skip("whether the entry beats the last record: name that with --vs")
    return Report(
        folder=entry.folder,
        rules=rules,
        track=context.track.name if context.track is not None else "",
        claimed=_claimed(context),
        recomputed=_recomputed(context),
        findings=sorted_findings(context.notes.findings),
        not_checked=[*context.notes.not_checked, *ALWAYS_OPEN],
        pr=next((value for key in _PR if isinstance(value := context.submission.raw.get(key), int)), None),
        lineage=[clean(str(value), 200) for key in _BASES if (value := context.submission.raw.get(key))],
        stats=stats,
    )


def _statistics(context: Context, beat: Sequence[str]) -> list[dict[str, Any]]:
    """Return each policy's verdict on the entry against what it is to beat."""
    others = [run.value for run in read_values(list(beat), "loss", context.rules)]
    own = [log.val_loss for log in context.supporting if log.val_loss is not None]
    result = compare(own, others)
    decided = [
        {
            "policy": policy.name,
            "delta_nats": -result.gain,
            "p": result.p(policy.floor_nats),
            "passes": passes(result, policy),
            "runs_needed": seeds_needed(result, policy),
        }
        for policy in context.rules.policies
    ]
    for policy, found in zip(context.rules.policies, decided, strict=True):
        verdict = "meets" if found["passes"] else "does not meet"
        text = f"The entry {verdict} the policy {policy.name}: {result.gain:.5f} nats better, p {found['p']:.3g}."
        context.flag("R14" if policy.floor_nats else "R15", "INFO", text, "Nothing to do.", kind="meta")
    return decided


def _claimed(context: Context) -> dict[str, Any]:
    names = ("name", "author", "date", "val_bpb", "val_loss", "bytes_total", "bytes_code", "steps", "train_s", "eval_s")
    values = context.submission.values
    made: dict[str, Any] = {name: values[name] for name in names if name in values}
    if context.submission.declared_seeds:
        made["seeds"] = context.submission.declared_seeds
    return made


def _recomputed(context: Context) -> dict[str, Any]:
    """Return what the logs say, one row a log."""
    rows = [
        {
            "log": log.name,
            "seed": seed_of(log),
            "val_bpb": log.val_bpb,
            "val_loss": log.val_loss,
            "final": log.final,
            "bytes_total": log.bytes_total,
            "steps": log.steps,
            "train_s": log.train_s,
            "eval_s": log.eval_s,
        }
        for log in context.logs
    ]
    scores = [log.val_bpb for log in context.supporting if log.val_bpb is not None]
    made: dict[str, Any] = {"logs": rows} if rows else {}
    if scores:
        made["val_bpb_mean"] = sum(scores) / len(scores)
    return made
