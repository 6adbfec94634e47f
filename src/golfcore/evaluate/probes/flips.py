"""The flip probes: change tokens, and require that no loss before them moves."""

from __future__ import annotations

import numpy as np

from golfcore.evaluate.probes.result import TOLERANCE, ProbeResult
from golfcore.evaluate.probes.scorer import Floats, Scorer, Tokens, places

CUTS = 6
FLIPS = 6  # places of the target-flip probe
OTHERS = 4  # other tokens at each place


def future_flip(scorer: Scorer, tokens: Tokens, *, seed: int = 0, cuts: int = CUTS) -> ProbeResult:
    """Replace all tokens from a cut on, by noise and by copies of the past, and compare the losses before the cut.

    Args:
        scorer: the scorer.
        tokens: int64 [n].
        seed: seed of the cuts and of the noise.
        cuts: number of cuts, spread over the text.
    """
    rng = np.random.default_rng(seed)
    expected = scorer.losses(tokens)
    moved = Moved(expected)
    for number, cut in enumerate(places(2, len(tokens), cuts, rng)):
        flipped = tokens.copy()
        if number % 2:
            flipped[cut:] = np.resize(tokens[:cut], len(tokens) - cut)
        else:
            flipped[cut:] += rng.integers(1, scorer.vocab_size, len(tokens) - cut)
            flipped[cut:] %= scorer.vocab_size
        moved.compare(scorer.losses(flipped), cut, f"other tokens from {cut:,} on")
    return ProbeResult(
        "future-flip", moved.worst <= TOLERANCE, moved.worst, TOLERANCE, "nats",
        "no loss depends on later tokens: nothing is fitted, cached or calibrated on text that is not scored yet",
        open=f"tried at {min(cuts, len(tokens) - 2)} cuts of {len(tokens):,} tokens", first=moved.first,
        found=moved.found,
    )  # fmt: skip


def target_flip(
    scorer: Scorer, tokens: Tokens, *, seed: int = 1, flips: int = FLIPS, others: int = OTHERS
) -> ProbeResult:
    """Change one token at a time: losses before it stay, and its own loss is the one that ``predict`` gave it.

    Args:
        scorer: the scorer.
        tokens: int64 [n].
        seed: seed of the places and of the other tokens.
        flips: number of places.
        others: number of other tokens at each place.
    """
    rng = np.random.default_rng(seed)
    moved = Moved(scorer.losses(tokens))
    for at in places(1, len(tokens), flips, rng):
        changed = [(int(tokens[at]) + int(step)) % scorer.vocab_size for step in _steps(rng, scorer.vocab_size, others)]
        for token in changed:
            flipped = tokens.copy()
            flipped[at] = token
            moved.compare(scorer.losses(flipped), at, f"token {token} instead of {tokens[at]} at {at:,}")
        if scorer.predict is not None:
            log_p = scorer.log_probabilities(tokens[:at])
            for token in (int(tokens[at]), *changed):
                loss = scorer.losses(np.append(tokens[:at], token))[-1]
                moved.differ(abs(loss + log_p[token]), at, f"scored {loss:.4f} nats, predicted {-log_p[token]:.4f}")
    without = "the loss of the changed token itself: the file has no predict, so the mass probe alone judges it"
    return ProbeResult(
        "target-flip", moved.worst <= TOLERANCE, moved.worst, TOLERANCE, "nats",
        "no loss depends on the token to be scored but for that token's own probability, which was fixed before",
        open="" if scorer.predict else without, first=moved.first, found=moved.found,
    )  # fmt: skip


class Moved:
    """The largest change of a loss that was not to change, and where one first was too large."""

    def __init__(self, expected: Floats) -> None:
        self._expected = expected
        self.worst, self.first, self.found = 0.0, None, ""  # type: float, int | None, str

    def compare(self, losses: Floats, changed: int, how: str) -> None:
        """Compare the losses of the tokens before ``changed``."""
        change = np.abs(losses - self._expected)[: changed - 1]
        if not len(change):
            return
        self.worst = max(self.worst, float(change.max()))
        if change.max() > TOLERANCE:
            at = int(np.argmax(change > TOLERANCE))
            moved = f"{self._expected[at]:.4f} to {losses[at]:.4f} nats"
            self._offends(at + 1, f"{how} moved the loss of token {at + 1:,} from {moved}")

    def differ(self, change: float, at: int, how: str) -> None:
        """Take in one difference at token ``at``."""
        self.worst = max(self.worst, float(change))
        if change > TOLERANCE:
            self._offends(at, f"token {at:,}: {how}")

    def _offends(self, at: int, found: str) -> None:
        if self.first is None or at < self.first:
            self.first, self.found = at, found


def _steps(rng: np.random.Generator, vocab_size: int, count: int) -> Tokens:
    """Return distinct steps to other tokens."""
    return rng.choice(np.arange(1, vocab_size), size=min(count, vocab_size - 1), replace=False)
