"""The documents that attention keeps apart, and the rates that published kernels reach on segments of their lengths.

Rates are those of FlashAttention-2 and -3 on an H100 at head size 64, bf16, from arXiv:2407.08608, figures 5 and 6, in
TFLOP/s as that paper counts them: half of all products for causal attention, two and a half times as many backward.
The paper has no causal backward pass at that head size: it is given the share of the full one that the causal forward
pass has of the full one. Other head sizes are given the same rates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist

DOCUMENT_TOKENS, DOCUMENT_SPREAD = 957, 1.0  # tokens of a document on average, and the deviation of their logarithm
DRAWN = 999  # documents, at even quantiles of their distribution


@dataclass(frozen=True, slots=True)
class Published:
    """The rates of one attention kernel in TFLOP/s.

    Attributes:
        causal: forward and causal, by the length of the segments.
        full, full_backward: without a mask, at the longest of those lengths.
    """

    causal: Mapping[int, float]
    full: float
    full_backward: float

    def forward(self, length: float) -> float:
        """Return the flop/s of the causal forward pass on segments of ``length`` tokens.

        The time for each score is linear in 1 / length between published lengths and beyond them: each query has work
        that does not depend on how many keys it sees. The three rates of FlashAttention-2 lie on such a line.
        """
        points = sorted(((1 / at, 1 / rate) for at, rate in self.causal.items()), reverse=True)
        (x0, y0), (x1, y1) = next(((a, b) for a, b in pairwise(points) if b[0] <= 1 / length), (points[-2], points[-1]))
        return 1e12 / (y0 + (1 / length - x0) * (y1 - y0) / (x1 - x0))

    def backward(self, length: float) -> float:
        """Return the flop/s of the causal backward pass on segments of ``length`` tokens."""
        return self.forward(length) * self.full_backward / self.full


FLASH2 = Published({512: 180.0, 1024: 229.0, 2048: 262.0}, 318.0, 264.0)
FLASH3 = Published({512: 197.0, 1024: 265.0, 2048: 371.0}, 460.0, 422.0)


@dataclass(frozen=True, slots=True)
class Segments:
    """The lengths of the segments that attention keeps apart, in tokens; each stands for as many as it occurs."""

    lengths: tuple[int, ...]

    @property
    def longest(self) -> int:
        return max(self.lengths)

    @property
    def keys(self) -> float:
        """Return the keys that a query sees on average."""
        return sum(n * (n + 1) / 2 for n in self.lengths) / sum(self.lengths)

    def rates(self, published: Published) -> tuple[float, float]:
        """Return the flop/s forward and backward over all segments."""
        scores = [n * (n + 1) / 2 for n in self.lengths]
        forward = sum(s / published.forward(n) for s, n in zip(scores, self.lengths, strict=True))
        backward = sum(s / published.backward(n) for s, n in zip(scores, self.lengths, strict=True))
        return sum(scores) / forward, sum(scores) / backward


def documents(most: int, mean: float = DOCUMENT_TOKENS, spread: float = DOCUMENT_SPREAD) -> Segments:
    """Return the segments of documents of log-normal lengths, in pieces of at most ``most`` tokens."""
    normal = NormalDist(math.log(mean) - spread**2 / 2, spread)
    lengths: list[int] = []
    for i in range(DRAWN):
        whole, rest = divmod(max(1, round(math.exp(normal.inv_cdf((i + 0.5) / DRAWN)))), most)
        lengths += [most] * whole + [rest] * (rest > 0)
    return Segments(tuple(lengths))
