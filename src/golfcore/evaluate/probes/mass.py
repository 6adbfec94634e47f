"""The mass probe and the noise control, which find out if what is scored is a probability."""

from __future__ import annotations

import math

import numpy as np

from golfcore.evaluate.probes.result import ProbeResult
from golfcore.evaluate.probes.scorer import Scorer, Tokens, places

MASS_TOLERANCE = 1e-3  # of a sum that should be 1
POSITIONS = 3
CANDIDATES = 64
BESIDE_PREDICT = 24  # candidates of a large vocabulary, if predict gives all of them
NATS_OF_LUCK = 20.0  # more than this has probability exp(-20) = 2e-9, whatever a legal scorer does


def mass(
    scorer: Scorer, tokens: Tokens, *, seed: int = 2, positions: int = POSITIONS, candidates: int = CANDIDATES
) -> ProbeResult:
    """Score every candidate at some places of the text, and sum the probabilities.

    Of a vocabulary above ``candidates`` a part is tried: frequent tokens of the text and random ones. A sum above 1
    is proof all the same; with ``predict`` the whole distribution is summed, too.

    Args:
        scorer: the scorer.
        tokens: int64 [n].
        seed: seed of the places and of the candidates.
        positions: number of places, all but one in the later half, where caches are warm.
        candidates: candidates at each place.
    """
    rng = np.random.default_rng(seed)
    half, n = max(1, len(tokens) // 2), len(tokens)
    whole = scorer.vocab_size <= candidates
    candidates = candidates if whole or scorer.predict is None else min(candidates, BESIDE_PREDICT)
    worst, first, found, least = 0.0, None, "", 1.0
    for at in sorted({*places(1, half, 1, rng), *places(half, n, positions - 1, rng)}):
        tried = _candidates(scorer.vocab_size, tokens, at, candidates, rng)
        total = 0.0
        for token in tried:
            flipped = tokens.copy()
            flipped[at] = token
            total += math.exp(-scorer.losses(flipped)[at - 1])
        sums = [(total, whole, f"{len(tried):,} candidates as scored")]
        if scorer.predict is not None:
            sums.append((float(np.exp(scorer.log_probabilities(tokens[:at])).sum()), True, "all of predict"))
        least = min(least, total)
        for value, complete, what in sums:
            off = abs(value - 1) if complete else max(0.0, value - 1)
            worst = max(worst, off)
            if off > MASS_TOLERANCE and first is None:
                first, found = at, f"token {at:,}: the probabilities of {what} add up to {value:.4f}"
    return ProbeResult(
        "probability mass", worst <= MASS_TOLERANCE, worst, MASS_TOLERANCE, "of a sum of 1",
        "the probabilities of all tokens add up to 1 before the true one is known", first=first, found=found,
        open=_left_open(scorer, whole, candidates, least),
    )  # fmt: skip


def _left_open(scorer: Scorer, whole: bool, candidates: int, least: float) -> str:
    if whole:
        return ""
    tried = f"{candidates:,} of {scorer.vocab_size:,} candidates were scored"
    if scorer.predict is not None:
        return f"{tried}; of the others only predict was summed"
    return f"{tried}: sums from {least:.4f} up, below 1, do not prove that the rest fits; define predict"


def _candidates(vocab_size: int, tokens: Tokens, at: int, count: int, rng: np.random.Generator) -> list[int]:
    """Return every token of a small vocabulary, or the true one, frequent ones and random ones."""
    if vocab_size <= count:
        return list(range(vocab_size))
    ids, times = np.unique(tokens, return_counts=True)
    frequent = ids[np.argsort(-times, kind="stable")][: count // 2].tolist()
    chosen = dict.fromkeys([int(tokens[at]), *frequent, *rng.choice(vocab_size, count, replace=False).tolist()])
    return list(chosen)[:count]


def noise(scorer: Scorer, length: int, *, seed: int = 3) -> ProbeResult:
    """Score tokens drawn uniformly at random, which nobody can predict.

    Over uniform tokens exp(gain), where the gain is the sum of ``ln V - loss``, has an expectation of 1 for any legal
    scorer, so by Ville's inequality it is ever above G nats with a probability below exp(-G).

    Args:
        scorer: the scorer.
        length: number of random tokens.
        seed: seed of the tokens.
    """
    tokens = np.random.default_rng(seed).integers(0, scorer.vocab_size, length)
    gain = np.cumsum(math.log(scorer.vocab_size) - scorer.losses(tokens))
    best = float(gain.max())
    passed = best <= NATS_OF_LUCK
    first = None if passed else int(np.argmax(gain > NATS_OF_LUCK)) + 1
    rate = float(math.log(scorer.vocab_size) - gain[-1] / len(gain)) / math.log(2)
    found = "" if passed else (
        f"{rate:.3f} bits a token on noise of {math.log2(scorer.vocab_size):.3f} bits a token: it knows or overcounts"
    )  # fmt: skip
    return ProbeResult(
        "uniform noise", passed, best, NATS_OF_LUCK, "nats gained",
        "on random tokens nothing is gained, which only a causal and normalized scorer cannot avoid", first=first,
        found=found, open="a cheat that gains little on noise",
    )  # fmt: skip
