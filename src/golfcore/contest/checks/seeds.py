"""Check that the seeds are runs of their own, of one configuration, and not the best of many."""

from __future__ import annotations

import re

from golfcore.contest.checks.context import Context, by_seed
from golfcore.contest.log_facts import LogFacts, seed_of

MANY = 8  # logs from which on a claim that is the best of them means a search
ODD_SEED = 100_000
# Settings that differ between seeds of one configuration.
OWN = re.compile(
    r"seed|run_?id|path|file|rank|time|date|host|port|name|dir|gpu|step|loss|bpb|pid|^\w$|elapsed|tok", re.I
)


def check_seeds(context: Context) -> None:
    """Check for copies, for logs that name another seed, for odd seeds, and for settings that differ."""
    copies = _copies(context.logs)
    for first, second in copies:
        context.flag(
            "I19",
            "LIKELY",
            f"{first.name} and {second.name} are one run under two seeds: every logged loss is equal.",
            "File a run of its own for each seed.",
            file=second.name,
            line=second.score_line,
        )
    for log in context.logs:
        if log.seed is not None and log.named_seed is not None and log.seed != log.named_seed:
            context.flag(
                "R17",
                "REVIEW",
                f"{log.name} is named after seed {log.named_seed} and prints seed {log.seed}.",
                "Let the log print the seed that was used.",
                file=log.name,
                line=log.setting_lines.get("seed", 0),
            )
    _picked(context)
    _settings(context)


def copied_runs(logs: list[LogFacts]) -> list[tuple[str, str]]:
    """Return the names of logs that are one run under two seeds."""
    return [(first.name, second.name) for first, second in _copies(logs)]


def _copies(logs: list[LogFacts]) -> list[tuple[LogFacts, LogFacts]]:
    def losses(log: LogFacts) -> tuple[float, ...]:
        return tuple(e["train_loss"] for e in log.events if e["kind"] == "train" and e.get("train_loss") is not None)

    seen: dict[tuple[object, ...], LogFacts] = {}
    found = []
    for log in logs:
        trace = losses(log)
        key = (*trace, log.val_bpb)
        if len(trace) < 3:
            continue
        if key in seen and seed_of(seen[key]) != seed_of(log):
            found.append((seen[key], log))
        seen.setdefault(key, log)
    return found


def _picked(context: Context) -> None:
    seeds = set(context.submission.declared_seeds) | {seed for seed in by_seed(context.logs) if seed is not None}
    odd = sorted(seed for seed in seeds if seed >= ODD_SEED)
    if odd:
        context.flag(
            "I18",
            "REVIEW",
            f"Unusual seed {odd[0]}: nothing shows how it was chosen.",
            "Say why, or run common seeds.",
            kind="meta",
            confidence=0.4,
        )
    scores = sorted(log.val_bpb for log in context.logs if log.val_bpb is not None)
    claimed = context.submission.number("val_bpb")
    if (
        claimed is not None
        and len(scores) >= MANY
        and abs(claimed - scores[0]) < 1e-4
        and scores[-1] - scores[0] > 2e-4
    ):
        context.flag(
            "I18",
            "LIKELY",
            f"The claim is the best of {len(scores)} logged runs.",
            "Claim the mean of seeds chosen beforehand.",
            kind="meta",
        )
    tried = context.submission.raw.get("seeds_tried") or context.submission.raw.get("num_seeds_tried")
    if isinstance(tried, list):
        tried = len(tried)
    if isinstance(tried, int) and tried > max(len(seeds), context.rules.limits.min_seeds):
        context.flag(
            "I18",
            "LIKELY",
            f"submission.json says that {tried} seeds were tried, and reports {len(seeds)}.",
            "Claim the mean of seeds chosen beforehand.",
            kind="meta",
        )


def _settings(context: Context) -> None:
    """Report settings that differ between the logs that support the claim."""
    logs = [log for log in context.supporting if log.settings]
    if len(logs) < 2:
        return
    differing = []
    for key, value in logs[0].settings.items():
        others = {log.settings[key] for log in logs[1:] if key in log.settings}
        if (
            others - {value}
            and not OWN.search(key)
            and logs[0].setting_lines.get(key, 0) < (logs[0].stop_line or 10**9)
        ):
            differing.append(f"{key} ({value[:20]} and {sorted(others - {value})[0][:20]})")
    if differing:
        context.flag(
            "R17",
            "REVIEW",
            f"Settings differ between seeds: {', '.join(differing[:5])}.",
            "Run all seeds with one configuration.",
            file=logs[0].name,
            confidence=0.5,
        )
    sizes = {log.bytes_code for log in logs if log.bytes_code}
    if len(sizes) > 1:
        context.flag(
            "R17",
            "REVIEW",
            f"The code has {', '.join(f'{size:,}' for size in sorted(sizes))} bytes in different logs.",
            "Run all seeds with one state of the code.",
            file=logs[0].name,
            confidence=0.6,
        )
