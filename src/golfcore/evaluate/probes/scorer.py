"""The protocol of the probes: what a scorer offers, and the checks of each answer.

A scorer is a function from tokens to losses. Each call is a whole evaluation of its own: the text begins with the first
token and ends with the last one, and nothing is known from earlier calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from golfcore.errors import RuleError

Tokens = NDArray[np.int64]
Floats = NDArray[np.float64]
Numbers = Sequence[int] | NDArray[np.integer]

ABOVE_ONE = 1e-6  # nats below 0 that are rounding


class Entry(NamedTuple):
    """A line of a scorer's ledger: the tokens ``first`` to ``last``, and a hash of the state that scored them."""

    first: int
    last: int
    state: str


@dataclass(frozen=True)
class Scorer:
    """A scorer as the probes see it; all but the first two are optional.

    Attributes:
        vocab_size: number of tokens, V.
        score: returns the losses of ``tokens[1:]`` in nats, given all tokens of a text.
        predict: returns the log-probabilities [V] of the token after a prefix, as the last token of a text.
        ledger: returns which tokens were scored together, and a hash of the adaptive state before it.
        byte_counts: returns the bytes of text that each of ``tokens[1:]`` adds to the denominator.
        decode: returns the bytes of text that tokens stand for.
        encode: returns the tokens of a document.
    """

    vocab_size: int
    score: Callable[[Tokens], Floats]
    predict: Callable[[Tokens], Floats] | None = None
    ledger: Callable[[Tokens], Sequence[Entry]] | None = None
    byte_counts: Callable[[Tokens], Numbers] | None = None
    decode: Callable[[Tokens], bytes] | None = None
    encode: Callable[[bytes], Numbers] | None = None

    def losses(self, tokens: Tokens) -> Floats:
        """Return the losses of ``tokens[1:]`` in nats, fp64.

        Raises:
            RuleError: not one finite loss of at least 0 per token.
        """
        losses = np.asarray(self.score(tokens.copy()), np.float64)
        if losses.shape != (len(tokens) - 1,):
            raise RuleError(
                f"score gave an array {list(losses.shape)} for {len(tokens)} tokens; expected [{len(tokens) - 1}]: one "
                "loss for every token but the first"
            )
        _require(np.isfinite(losses), losses, "a loss that is not finite")
        _require(losses >= -ABOVE_ONE, losses, "a loss below 0, a probability above 1")
        return losses

    def log_probabilities(self, prefix: Tokens) -> Floats:
        """Return what ``predict`` says of the token after ``prefix``, fp64 [V].

        Raises:
            RuleError: not V numbers, or a NaN.
        """
        if self.predict is None:
            raise RuleError("the scorer has no predict")
        log_p = np.asarray(self.predict(prefix.copy()), np.float64)
        if log_p.shape != (self.vocab_size,) or np.isnan(log_p).any():
            raise RuleError(
                f"predict gave an array {list(log_p.shape)}, or a NaN, for the token after {len(prefix)} tokens; "
                f"expected [{self.vocab_size}] log-probabilities"
            )
        return log_p


def _require(good: NDArray[np.bool_], losses: Floats, what: str) -> None:
    if not good.all():
        at = int(np.argmin(good))
        raise RuleError(f"score gave {what}: {losses[at]:g} nats for token {at + 1}")


def places(low: int, high: int, count: int, rng: np.random.Generator) -> list[int]:
    """Return up to ``count`` random places from ``low`` to ``high - 1``, one in each of as many equal parts, sorted."""
    edges = np.linspace(low, high, min(count, max(1, high - low)) + 1).astype(int)
    return sorted({int(rng.integers(a, max(a + 1, b))) for a, b in pairwise(edges)})
