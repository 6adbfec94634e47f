"""Check that submission.json and README say what the logs say."""

from __future__ import annotations

import re

from golfcore.contest.checks.context import MEAN_DIGITS, Context, by_seed
from golfcore.contest.log_facts import SAME, finals

_SAYS = (
    ("I12", r"\bval(?:idation)?[-_ ]only\b|train(?:ed|ing|s)? (?:directly )?on (?:the )?val(?:idation)?\b",
     "trains on the validation split"),
    ("I1", r"pre-?quant(?:ization)?[-_ ]TTT", "adapts to validation text before quantization"),
    ("I4", r"\btwo[- ]pass\b|full rescor", "scores in two passes"),
    ("I8", r"\bSLOT\b|\bETLB\b", "fits a vector while it scores"),
    ("I7", r"\bPPM(?:-D|d)?\b", "mixes a byte predictor in"),
    ("I11", r"paid[- ]prefix", "stores validation tokens"),
)  # fmt: skip
_DENIES = re.compile(
    r"\bno[nt]?\b|n't|never|without|unlike|instead|avoid|illegal|forbid|ban|\bno_|false|true|remov|reject|legal", re.I
)
BETTER = 5e-4  # bits per byte that a claim may be better than its evidence before it is a contradiction


def check_claims(context: Context) -> None:
    """Compare the claims of submission.json and README with each other and with the logs."""
    _score(context)
    _seeds(context)
    _title(context)
    _steps(context)
    _hardware(context)
    _declared_techniques(context)


def _score(context: Context) -> None:
    """Compare the claimed score with the logs: a claim better than every final score rests on nothing."""
    claimed = context.submission.number("val_bpb")
    values = [event["val_bpb"] for log in context.logs for event in finals(log)]
    if claimed is None or not values:
        context.notes.skip(
            "claimed score against the logs: " + ("no claim" if claimed is None else "no final score logged")
        )
        return
    means = [log.val_bpb for log in context.logs if log.val_bpb is not None]
    mean = sum(means) / len(means)
    if claimed < min(values) - BETTER:
        all_there = len(context.logs) >= _declared(context)
        context.flag(
            "I19",
            context.strict("LIKELY" if all_there else "REVIEW"),
            f"submission.json claims {claimed:.5f} bits per byte; the best score in the logs is {min(values):.5f}.",
            "Claim what the logs show, or add the log of the run that reached it.",
            file=_file(context),
            line=_line(context, "val_bpb"),
            kind="meta",
        )
    elif not context.supported and abs(claimed - mean) >= MEAN_DIGITS:
        context.flag(
            "I19",
            "REVIEW",
            f"submission.json claims {claimed:.5f} bits per byte; the mean of the logs is {mean:.5f}.",
            "Claim the mean of the seeds.",
            file=_file(context),
            line=_line(context, "val_bpb"),
            kind="meta",
        )
    elif len(means) >= 3 and abs(claimed - min(means)) < SAME and mean - claimed > BETTER:
        context.flag(
            "I18",
            "REVIEW",
            f"The claim {claimed:.5f} is the best of {len(means)} seeds; their mean is {mean:.5f}.",
            "Claim the mean of the seeds.",
            file=_file(context),
            line=_line(context, "val_bpb"),
            kind="meta",
        )


def _seeds(context: Context) -> None:
    """Compare the claim of each seed with the log of that seed."""
    logs = by_seed(context.logs)
    everywhere = [event["val_bpb"] for log in context.logs for event in finals(log)]
    for seed, claims in context.submission.seeds.items():
        claimed = claims.get("val_bpb")
        own = [event["val_bpb"] for log in logs.get(seed, []) for event in finals(log)]
        if claimed is None or not own or any(abs(value - claimed) < 10 * SAME for value in everywhere):
            continue
        better = claimed < min(own) - BETTER
        context.flag(
            "I19",
            context.strict("LIKELY" if better else "REVIEW"),
            f"Seed {seed}: submission.json claims {claimed:.5f} bits per byte; its log shows {min(own):.5f}.",
            "Claim what the log of the seed shows.",
            file=_file(context),
            kind="meta",
        )
    lacking = [str(seed) for seed in context.submission.declared_seeds if seed not in logs]
    if lacking and logs:
        context.flag(
            "R17",
            "REVIEW",
            f"Seeds {', '.join(lacking[:6])} are claimed and have no log.",
            "Add their logs.",
            file=_file(context),
            kind="meta",
        )


def _title(context: Context) -> None:
    """Compare README and submission.json, and README's rows of seeds with their logs."""
    claimed = context.submission.number("val_bpb")
    readme = context.entry.named("README.md")
    name = readme.name if readme is not None else ""
    logs = by_seed(context.logs)
    for score in context.readme:
        if score.title and claimed is not None and abs(score.bpb - claimed) > 1e-3:
            text = f"README's title says {score.bpb}, submission.json {claimed:.5f} bits per byte."
            context.flag("I19", "REVIEW", text, "Say one number.", file=name, line=score.line, kind="meta")
        if score.seed is None or score.seed not in logs:
            continue
        shown = [event["val_bpb"] for log in logs[score.seed] for event in log.events if event.get("val_bpb")]
        if shown and score.bpb < min(shown) - BETTER:
            # A README that also has the seed's logged score may show another run beside it.
            beside = [s for s in context.readme if s.seed == score.seed]
            told = any(abs(s.bpb - value) < MEAN_DIGITS for s in beside for value in shown)
            text = f"README says {score.bpb} bits per byte for seed {score.seed}; no line of its log is under "
            context.flag(
                "I19",
                "REVIEW" if told else context.strict("LIKELY"),
                f"{text}{min(shown):.5f}.",
                "Say what the log shows.",
                file=name,
                line=score.line,
                kind="meta",
                confidence=0.8,
            )


def _steps(context: Context) -> None:
    claimed = context.submission.number("steps")
    steps = [log.steps for log in context.logs if log.steps]
    if claimed and steps and not 0.99 * min(steps) <= claimed <= 1.01 * max(steps):
        context.flag(
            "I19",
            "REVIEW",
            f"submission.json claims {claimed:,.0f} steps; the logs have {min(steps):,} to {max(steps):,}.",
            "Claim the steps of the runs that are filed.",
            file=_file(context),
            kind="meta",
        )


def _hardware(context: Context) -> None:
    """Check for a record on other hardware: a world size, or a device that the claims name."""
    if not context.record:
        return
    sizes = {log.settings.get("world_size") for log in context.supporting} - {None}
    if sizes and sizes != {"8"}:
        context.flag(
            "R7",
            "REVIEW",
            f"The logs have world_size {', '.join(sorted(str(size) for size in sizes))}; a record needs 8 GPUs.",
            "Repeat the run on 8 H100, or file it as a non-record entry.",
        )
    named = str(context.submission.values.get("hardware", ""))
    if re.search(r"\b[1-7]\s?x|4090|5090|A100|RTX|T4|L40", named) and "8x" not in named.replace(" ", ""):
        context.flag(
            "R7",
            "REVIEW",
            f"submission.json names the hardware {named[:60]!r}; a record needs 8 H100.",
            "Repeat the run on 8 H100, or file it as a non-record entry.",
            file=_file(context),
            kind="meta",
        )


def _declared_techniques(context: Context) -> None:
    """Ask about what the entry says of itself: that it trains on the validation split, or keeps the best pass."""
    readme = context.entry.named("README.md")
    texts = [(readme.name, readme.text or "")] if readme is not None else []
    if context.submission_file is not None:
        texts.append((context.submission_file.name, context.submission_file.text or ""))
    for name, text in texts:
        for number, line in enumerate(text.split("\n")[:5_000], 1):
            for rule, pattern, what in _SAYS:
                if re.search(pattern, line[:1_000], re.IGNORECASE) and not _DENIES.search(line[:1_000]):
                    context.flag(
                        rule,
                        "REVIEW",
                        f"The entry says that it {what}.",
                        "Say how the rule is kept.",
                        file=name,
                        line=number,
                        kind="meta",
                        confidence=0.5,
                    )


def _declared(context: Context) -> int:
    counts = [len(context.submission.declared_seeds), len(context.submission.seeds)]
    number = context.submission.raw.get("n_seeds") or context.submission.raw.get("num_seeds")
    return max([*counts, number if isinstance(number, int) else 0])


def _file(context: Context) -> str:
    return context.submission_file.name if context.submission_file is not None else ""


def _line(context: Context, name: str) -> int:
    """Return the line of submission.json that has a claim."""
    key = context.submission.keys.get(name)
    file = context.submission_file
    if key is None or file is None or file.text is None:
        return 0
    return next((n for n, line in enumerate(file.text.split("\n"), 1) if f'"{key}"' in line), 0)
