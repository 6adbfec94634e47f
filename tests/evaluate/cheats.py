"""Scorers that break a rule, each in one way that was seen in filed entries, and honest ones that look alike.

All are over a vocabulary of 12 tokens that spell three bytes, and start from one table of next-token probabilities.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from golfcore.evaluate.probes.scorer import Entry, Scorer

Tokens = NDArray[np.int64]
Losses = NDArray[np.float64]

V = 12
CHUNK = 16
EPOCHS = 3
LOGITS_VV = np.random.default_rng(7).normal(0, 1, (V, V))
SPELLED = [b" ", b"a", b"b", b"aa", b"ab", b" a", b" b", b"ba", b"bb", b" ab", b" aa", b"bab"]


def log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


LOG_P_VV = log_softmax(LOGITS_VV)
P_VV = np.exp(LOG_P_VV)


def text(n: int = 120) -> Tokens:
    """A phrase of 20 tokens again and again, every tenth token of it replaced."""
    rng = np.random.default_rng(0)
    phrase = [0]
    while len(phrase) < 20:
        phrase.append(int(rng.choice(V, p=P_VV[phrase[-1]])))
    tokens = np.resize(phrase, n)
    tokens[::10] = rng.integers(0, V, len(tokens[::10]))
    return tokens


def of_targets(log_p_TV: NDArray[np.float64], tokens: Tokens) -> Losses:
    return -log_p_TV[np.arange(len(tokens) - 1), tokens[1:]]


def fixed(tokens: Tokens) -> Losses:
    return of_targets(LOG_P_VV[tokens[:-1]], tokens)


def trained(logits_VV: NDArray[np.float64], tokens: Tokens, rate: float = 0.5) -> None:
    """One step of gradient descent on the table, over the pairs of ``tokens``."""
    step_VV = np.zeros((V, V))
    before, target = tokens[:-1], tokens[1:]
    gradient_TV = np.exp(log_softmax(logits_VV[before]))
    gradient_TV[np.arange(len(target)), target] -= 1
    np.add.at(step_VV, before, gradient_TV)
    logits_VV -= rate * step_VV


def chunks(tokens: Tokens) -> list[Tokens]:
    """The text in chunks that share their borders, as inputs and targets."""
    return [tokens[at : at + CHUNK + 1] for at in range(0, len(tokens) - 1, CHUNK)]


# --- cheats -----------------------------------------------------------------------------------------------------------


def train_then_score(tokens: Tokens) -> Losses:
    """Train on the text that is to be scored, and then score it."""
    logits_VV = LOGITS_VV.copy()
    for _ in range(EPOCHS):
        trained(logits_VV, tokens)
    return of_targets(log_softmax(logits_VV[tokens[:-1]]), tokens)


def last_epoch(tokens: Tokens) -> Losses:
    """Train chunk by chunk in several epochs, and report the losses of the last epoch."""
    logits_VV, losses = LOGITS_VV.copy(), []
    for chunk in chunks(tokens):
        for _ in range(EPOCHS):
            last = of_targets(log_softmax(logits_VV[chunk[:-1]]), chunk)
            trained(logits_VV, chunk)
        losses.append(last)
    return np.concatenate(losses)


def min_over_passes(tokens: Tokens) -> Losses:
    """Take for each token the better of two models: only the true token can tell which."""
    return np.minimum(fixed(tokens), counted(tokens))


def two_pass_cache(tokens: Tokens) -> Losses:
    """Fill a cache of pairs in a first pass, and score with it in a second."""
    counts_VV = 4 * P_VV
    np.add.at(counts_VV, (tokens[:-1], tokens[1:]), 1)
    return -np.log((counts_VV / counts_VV.sum(1, keepdims=True))[tokens[:-1], tokens[1:]])


class WarmCache:
    """A cache that outlives a call: the second evaluation of a text knows it."""

    def __init__(self) -> None:
        self.counts_VV = 4 * P_VV

    def __call__(self, tokens: Tokens) -> Losses:
        losses = []
        for before, target in pairwise(tokens):
            row_V = self.counts_VV[before]
            losses.append(-np.log(row_V[target] / row_V.sum()))
            row_V[target] += 1
        return np.array(losses)


def hashed_ngram(tokens: Tokens, buckets: int = 5) -> Losses:
    """Blend in counts that are looked up by a hash of context and target: collisions count for every target."""
    contexts, pairs, losses = Counter[int](), Counter[int](), []
    for before, target in pairwise(tokens.tolist()):
        context, pair = before % buckets, (7 * before + 3 * target) % buckets
        seen = min(1.0, pairs[pair] / contexts[context]) if contexts[context] else 0.0
        losses.append(-np.log(0.5 * P_VV[before, target] + 0.5 * seen))
        contexts[context] += 1
        pairs[pair] += 1
    return np.array(losses)


def class_gate(tokens: Tokens) -> Losses:
    """Rule out, where the true token begins a word, all tokens that begin none."""
    starts_V = np.array([spelling.startswith(b" ") for spelling in SPELLED])
    share_T = P_VV[tokens[:-1]] @ starts_V
    return fixed(tokens) + np.where(starts_V[tokens[1:]], np.log(share_T), 0)


def byte_mixture(tokens: Tokens) -> Losses:
    """Mix in a model of the bytes that the true token spells: several tokens begin with the same bytes."""
    byte_p = {ord(" "): 0.3, ord("a"): 0.4, ord("b"): 0.3}
    spelled_V = np.array([np.prod([byte_p[byte] for byte in spelled]) for spelled in SPELLED])
    return -np.log(0.5 * P_VV[tokens[:-1], tokens[1:]] + 0.5 * spelled_V[tokens[1:]])


def slot(tokens: Tokens) -> Losses:
    """Fit a bias on the logits of each window to the targets of that window, and score them with it."""
    losses = []
    for chunk in chunks(tokens):
        delta_V = np.zeros(V)
        for _ in range(5):
            p_TV = np.exp(log_softmax(LOGITS_VV[chunk[:-1]] + delta_V))
            delta_V -= 0.2 * (p_TV.sum(0) - np.bincount(chunk[1:], minlength=V))
        losses.append(of_targets(log_softmax(LOGITS_VV[chunk[:-1]] + delta_V), chunk))
    return np.concatenate(losses)


def calibrated(tokens: Tokens) -> Losses:
    """Choose the temperature with which the whole text costs least."""
    every = [of_targets(log_softmax(LOGITS_VV[tokens[:-1]] / (0.5 + 0.02 * step)), tokens) for step in range(100)]
    return min(every, key=lambda losses: float(losses.sum()))


def dropped_tail(tokens: Tokens) -> Losses:
    """Score whole windows only."""
    return fixed(tokens)[: (len(tokens) - 1) // CHUNK * CHUNK]


def certain(tokens: Tokens) -> Losses:
    """Forget the logarithm of the normalizer."""
    return -LOGITS_VV[tokens[:-1], tokens[1:]]


# --- honest look-alikes -----------------------------------------------------------------------------------------------


def counted(tokens: Tokens) -> Losses:
    """Count tokens that were scored, and predict by the counts."""
    counts_V, losses = np.ones(V), []
    for target in tokens[1:]:
        losses.append(-np.log(counts_V[target] / counts_V.sum()))
        counts_V[target] += 1
    return np.array(losses)


def score_first(tokens: Tokens) -> Losses:
    """Score each chunk, and then train several epochs on it."""
    logits_VV, losses = LOGITS_VV.copy(), []
    for chunk in chunks(tokens):
        losses.append(of_targets(log_softmax(logits_VV[chunk[:-1]]), chunk))
        for _ in range(EPOCHS):
            trained(logits_VV, chunk)
    return np.concatenate(losses)


def score_first_predict(prefix: Tokens) -> Losses:
    logits_VV = LOGITS_VV.copy()
    for chunk in chunks(prefix):
        if len(chunk) == CHUNK + 1:
            for _ in range(EPOCHS):
                trained(logits_VV, chunk)
    return log_softmax(logits_VV[prefix[-1]])


def score_first_ledger(tokens: Tokens) -> Sequence[Entry]:
    logits_VV, entries = LOGITS_VV.copy(), []
    for number, chunk in enumerate(chunks(tokens)):
        first = CHUNK * number + 1
        entries.append(Entry(first, first + len(chunk) - 2, logits_VV.tobytes().hex()))
        for _ in range(EPOCHS):
            trained(logits_VV, chunk)
    return entries


def tilted(tokens: Tokens) -> Losses:
    """Raise the token that followed this one last time, and divide by the sum over all tokens."""
    hints, losses = dict[int, int](), []
    for before, target in pairwise(tokens.tolist()):
        logits_V = LOG_P_VV[before].copy()
        if before in hints:
            logits_V[hints[before]] += 2.0
        losses.append(-log_softmax(logits_V)[target])
        hints[before] = target
    return np.array(losses)


def spelled(tokens: Tokens) -> bytes:
    return b"".join(SPELLED[token] for token in tokens)


def sidecar(tokens: Tokens) -> list[int]:
    return [len(SPELLED[token]) for token in tokens[1:]]


# The transform of a text: token 0 is an operator that makes the next token upper case, and stands for no byte.
def restored(tokens: Tokens) -> bytes:
    parts, upper = [], False
    for token in tokens:
        if token:
            parts.append(SPELLED[token].upper() if upper else SPELLED[token])
        upper = token == 0
    return b"".join(parts)


def original_bytes(tokens: Tokens) -> list[int]:
    return [len(SPELLED[token]) if token else 0 for token in tokens[1:]]


def operators_counted(tokens: Tokens) -> list[int]:
    return sidecar(tokens)


def space_twice(tokens: Tokens) -> list[int]:
    return [len(SPELLED[token]) + SPELLED[token].startswith(b" ") for token in tokens[1:]]


def fallback_as_three(tokens: Tokens) -> list[int]:
    """Count a single byte, which alone is no letter, as the three bytes of the replacement character."""
    return [3 if len(SPELLED[token]) == 1 else len(SPELLED[token]) for token in tokens[1:]]


def no_spaces(tokens: Tokens) -> list[int]:
    return [len(SPELLED[token].lstrip(b" ")) for token in tokens[1:]]


def scorer(score: Callable[[Tokens], Losses], **optional: object) -> Scorer:
    return Scorer(V, score, **optional)  # type: ignore[arg-type]
