"""The ledger replay: each token is scored once, by a state that does not depend on it, and calls know of no others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from golfcore.errors import RuleError
from golfcore.evaluate.probes.flips import Moved
from golfcore.evaluate.probes.result import TOLERANCE, ProbeResult
from golfcore.evaluate.probes.scorer import Entry, Scorer, Tokens, places

REPLAYS = 4


def ledger_replay(scorer: Scorer, tokens: Tokens, *, seed: int = 4, replays: int = REPLAYS) -> ProbeResult:
    """Score a text, other text, and the first again; replay the scorer's ledger if it keeps one.

    Args:
        scorer: the scorer.
        tokens: int64 [n].
        seed: seed of the other text and of the tokens that are changed.
        replays: number of ledger entries that are replayed.
    """
    rng = np.random.default_rng(seed)
    moved = Moved(scorer.losses(tokens))
    scorer.losses(rng.integers(0, scorer.vocab_size, len(tokens)))
    moved.compare(scorer.losses(tokens), len(tokens), "a second call")
    first, found = moved.first, moved.found
    if scorer.ledger is not None and first is None:
        first, found = _replayed(scorer, tokens, replays, rng)
    return ProbeResult(
        "ledger replay", first is None, moved.worst, TOLERANCE, "nats",
        "every token but the first has one loss, the same in every call, from a state older than the token",
        open="" if scorer.ledger else "the state at each token: the file keeps no ledger, so only flips tell",
        first=first, found=found,
    )  # fmt: skip


def _replayed(scorer: Scorer, tokens: Tokens, replays: int, rng: np.random.Generator) -> tuple[int | None, str]:
    """Return the first token at which the ledger breaks a rule, and how; None and "" if it breaks none."""
    entries = _entries(scorer, tokens)
    expected = 1
    for entry in entries:
        if entry.first != expected or entry.last < entry.first:
            what = "is scored twice" if entry.first < expected else "is never scored"
            return min(entry.first, expected), f"token {min(entry.first, expected):,} {what} in the ledger"
        expected = entry.last + 1
    if expected != len(tokens):
        return min(expected, len(tokens)), f"the ledger ends with token {expected - 1:,} of {len(tokens) - 1:,}"
    for number in places(0, len(entries), replays, rng):
        entry, flipped = entries[number], tokens.copy()
        flipped[entry.first :] += rng.integers(1, scorer.vocab_size, len(tokens) - entry.first)
        again = _entries(scorer, flipped % scorer.vocab_size)
        for old, new in zip(entries[: number + 1], again, strict=False):
            if old != new:
                return old.first, (
                    f"the state before token {old.first:,} changes with the tokens from {entry.first:,} on"
                )
    return None, ""


def _entries(scorer: Scorer, tokens: Tokens) -> Sequence[Entry]:
    if scorer.ledger is None:
        return []
    entries = [Entry(int(first), int(last), str(state)) for first, last, state in scorer.ledger(tokens.copy())]
    if not entries:
        raise RuleError("the ledger is empty: expected a line [first token, last token, state] for every piece scored")
    return entries
