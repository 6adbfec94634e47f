"""Stand in for ``golfcore.ops.ngram``: the mixture in plain Python, with the same losses."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
ORDER, BOS, RATE, BIAS, MOST = 8, 1, 0.2, -3.0, 1 << 22


class _Seen:
    """The tokens that followed a context."""

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.total = self.run = 0
        self.best = self.last = -1

    def add(self, token: int) -> None:
        self.run = self.run + 1 if self.last == token else 0
        self.last = token
        self.total += 1
        self.counts[token] = count = self.counts.get(token, 0) + 1
        if count >= self.counts.get(self.best, 0):
            self.best = token


class NgramMixture:
    """A mixture of a model with counts of the tokens that were scored; see ``golfcore.ops.ngram.NgramMixture``."""

    def __init__(self, vocab_size: int) -> None:
        self.contexts: dict[tuple[int, ...], _Seen] = {}
        self.document: Counter[int] = Counter()
        self.all: Counter[int] = Counter()
        self.in_document = self.in_all = 0
        self.history: list[int] = []
        self.gates: list[defaultdict[Any, float]] = [
            defaultdict(float), defaultdict(float), defaultdict(lambda: BIAS)
        ]  # fmt: skip
        self.squares: list[defaultdict[Any, float]] = [defaultdict(float) for _ in range(3)]

    def learn(self, tokens_N: Array) -> None:
        """Take in tokens that are not scored."""
        for token in tokens_N.tolist():
            self._count(token)

    def score(self, targets_N: Array, log_p_N: Array, top_log_p_N: Array, top_N: Array) -> Array:
        """Return the losses of consecutive targets in nats; each is learned before the next is scored."""
        rows = zip(targets_N.tolist(), log_p_N.tolist(), top_log_p_N.tolist(), top_N.tolist(), strict=True)
        return np.array([self._score(*row) for row in rows])

    def _stages(self, target: int, top_log_p: float, top: int) -> list[tuple[float, Any, Any, int]]:
        """Return each stage's share of the target and its places in the gates."""
        sure = int(min(max(-2 * top_log_p, 0), 15))
        found: list[tuple[float, Any, Any, int]] = []
        if self.in_document:
            share = self.document[target] / self.in_document
            found.append((share, (0, min(self.in_document.bit_length() - 1, 11), 0), (0, sure, 0, 0), 0))
        if self.in_all >= 100:
            found.append((self.all[target] / self.in_all, (1, 0, 0), (1, sure, 0, 0), 1))
        for k in range(1, min(ORDER, len(self.history)) + 1):
            seen = self.contexts.get(tuple(self.history[-k:]))
            if seen is None:
                break
            total, kinds = seen.total, len(seen.counts)
            size = min(total.bit_length() - 1, 11), kinds - 1 if kinds <= 3 else min(1 + kinds.bit_length(), 7)
            share = min(8 * seen.counts[seen.best] // total, 7)
            place = 2 * k, sure, int(seen.best == top), share
            found.append((seen.counts.get(target, 0) / total, (2 * k, *size), place, 2 * k))
            if kinds > 1:
                place = 2 * k + 1, sure, int(seen.last == top), min(seen.run, 7)
                found.append((float(seen.last == target), (2 * k + 1, *size), place, 2 * k + 1))
        return found

    def _score(self, target: int, log_p: float, top_log_p: float, top: int) -> float:
        stages = self._stages(target, top_log_p, top)
        before, weights = [math.exp(log_p)], []
        for share, *places in stages:
            z = sum(gate[place] for gate, place in zip(self.gates, places, strict=True))
            weights.append(1 / (1 + math.exp(-z)))
            before.append(before[-1] + weights[-1] * (share - before[-1]))
        rest = 1.0
        for (share, *places), weight, p in zip(stages[::-1], weights[::-1], before[-2::-1], strict=True):
            gradient = rest * (share - p) / before[-1] * weight * (1 - weight)
            rest *= 1 - weight
            for gate, squares, place in zip(self.gates, self.squares, places, strict=True):
                squares[place] += gradient**2
                gate[place] += RATE * gradient / math.sqrt(squares[place] + 1e-2)
        self._count(target)
        return -math.log(before[-1])

    def _count(self, token: int) -> None:
        for k in range(1, min(ORDER, len(self.history)) + 1):
            context = tuple(self.history[-k:])
            if context not in self.contexts:
                if len(self.contexts) >= MOST:
                    continue
                self.contexts[context] = _Seen()
            self.contexts[context].add(token)
        if token == BOS:
            self.history, self.document, self.in_document = [], Counter(), 0
        else:
            self.document[token] += 1
            self.in_document += 1
        self.all[token] += 1
        self.in_all += 1
        self.history = [*self.history[1 - ORDER :], token]
