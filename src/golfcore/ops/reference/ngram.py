"""The n-gram mixture in plain Python: what ``csrc/ngram`` is compared with."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

TOTALS, KINDS, CONFIDENCES, SHARES = 12, 8, 16, 8
FIRST_ALL = 100
FLOOR = 1e-2


@dataclass
class Seen:
    """The tokens that followed a context."""

    counts: Counter[int] = field(default_factory=Counter)
    best: int = -1
    last: int = -1
    run: int = 0

    def add(self, token: int) -> None:
        self.run = self.run + 1 if self.last == token else 0
        self.last = token
        self.counts[token] += 1
        if self.counts[token] >= self.counts[self.best]:
            self.best = token


Stage = tuple[dict[int, float], tuple[int, ...], tuple[int, ...], int]  # shares by token, places in the gates


class PlainMixture:
    """The same as ``golfcore.ops.ngram.NgramMixture``, without a limit on its memory."""

    def __init__(self, vocab_size: int, order: int, bos: int, rate: float, bias: float) -> None:
        self.vocab_size, self.order, self.bos, self.rate = vocab_size, order, bos, rate
        self.contexts: defaultdict[tuple[int, ...], Seen] = defaultdict(Seen)
        self.document: Counter[int] = Counter()
        self.all: Counter[int] = Counter()
        self.history: list[int] = []
        self.gates: list[defaultdict[object, float]] = [
            defaultdict(float),
            defaultdict(float),
            defaultdict(lambda: bias),
        ]
        self.squares: list[defaultdict[object, float]] = [defaultdict(float) for _ in range(3)]

    def stages(self, top_log_p: float, top: int) -> list[Stage]:
        """Return the stages of the next token, in their order."""
        confidence = int(min(max(-2 * top_log_p, 0), CONFIDENCES - 1))
        found: list[Stage] = []
        if self.document:
            total = self.document.total()
            found.append((_shares(self.document), (0, min(_log2(total), TOTALS - 1), 0), (0, confidence, 0, 0), 0))
        if self.all.total() >= FIRST_ALL:
            found.append((_shares(self.all), (1, 0, 0), (1, confidence, 0, 0), 1))
        for k in range(1, min(self.order, len(self.history)) + 1):
            seen = self.contexts.get(tuple(self.history[-k:]))
            if seen is None:
                break
            total, kinds = seen.counts.total(), len(seen.counts)
            counts_class = (
                min(_log2(total), TOTALS - 1),
                kinds - 1 if kinds <= 3 else min(2 + _log2(kinds), KINDS - 1),
            )
            share = min(SHARES * seen.counts[seen.best] // total, SHARES - 1)
            agrees = (confidence, int(seen.best == top), share)
            found.append((_shares(seen.counts), (2 * k, *counts_class), (2 * k, *agrees), 2 * k))
            if kinds > 1:
                agrees = (confidence, int(seen.last == top), min(seen.run, SHARES - 1))
                found.append(({seen.last: 1.0}, (2 * k + 1, *counts_class), (2 * k + 1, *agrees), 2 * k + 1))
        return found

    def weights(self, stages: Sequence[Stage]) -> list[float]:
        """Return the gates of the stages."""
        logits = [sum(gate[place] for gate, place in zip(self.gates, places, strict=True)) for _, *places in stages]
        return [1 / (1 + math.exp(-z)) for z in logits]

    def distribution(self, p_V: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the mixed distribution, [V]."""
        top = int(p_V.argmax())
        stages = self.stages(math.log(p_V[top]), top)
        mixed_V = p_V.astype(np.float64)
        for (shares, *_), weight in zip(stages, self.weights(stages), strict=True):
            mixed_V *= 1 - weight
            for token, share in shares.items():
                mixed_V[token] += weight * share
        return mixed_V

    def score(self, target: int, log_p: float, top_log_p: float, top: int) -> float:
        """Return the loss of one target in nats, then learn it."""
        stages = self.stages(top_log_p, top)
        weights = self.weights(stages)
        before = [math.exp(log_p)]
        for (shares, *_), weight in zip(stages, weights, strict=True):
            before.append((1 - weight) * before[-1] + weight * shares.get(target, 0.0))
        rest = 1.0
        for (shares, *places), weight, p in reversed(list(zip(stages, weights, before[:-1], strict=True))):
            gradient = rest * (shares.get(target, 0.0) - p) / before[-1] * weight * (1 - weight)
            rest *= 1 - weight
            for gate, squares, place in zip(self.gates, self.squares, places, strict=True):
                squares[place] += gradient**2
                gate[place] += self.rate * gradient / math.sqrt(squares[place] + FLOOR)
        self.learn(target)
        return -math.log(before[-1])

    def learn(self, token: int) -> None:
        """Count one token."""
        for k in range(1, min(self.order, len(self.history)) + 1):
            self.contexts[tuple(self.history[-k:])].add(token)
        if token == self.bos:
            self.history.clear()
            self.document.clear()
        else:
            self.document[token] += 1
        self.all[token] += 1
        self.history.append(token)


def _shares(counts: Counter[int]) -> dict[int, float]:
    total = counts.total()
    return {token: count / total for token, count in counts.items()}


def _log2(x: int) -> int:
    return x.bit_length() - 1
