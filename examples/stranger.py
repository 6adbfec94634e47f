"""Wrap a scorer for `golfcore probe`: here a model of bytes that counts pairs of bytes that it has scored.

    golfcore probe --scorer examples/stranger.py --text my_text.txt

Only ``vocab_size`` and ``score`` are needed; what the other names add is in docs/guides/evaluation.md.
"""

from itertools import pairwise

import numpy as np

vocab_size = 260  # four special ids, then bytes: without an encode(text) below, text is given as byte + 4


def log_probabilities(counts, before):
    """The whole distribution of the next token, before it is known."""
    return np.log(counts[before] / counts[before].sum())


def score(tokens):
    """The loss of each of tokens[1:], in nats. Every call is an evaluation of its own: it begins with new counts."""
    counts, losses = np.full((vocab_size, vocab_size), 0.1), []
    for before, target in pairwise(tokens):
        losses.append(-log_probabilities(counts, before)[target])  # the loss is final
        counts[before, target] += 1  # and only then the target is learned
    return np.array(losses)


def predict(prefix):
    """Optional: the log-probabilities of the token after a prefix; they must be those that score() uses."""
    counts = np.full((vocab_size, vocab_size), 0.1)
    np.add.at(counts, (prefix[:-1], prefix[1:]), 1)
    return log_probabilities(counts, prefix[-1])


def byte_counts(tokens):
    """Optional: the bytes that each of tokens[1:] adds to the denominator of bits per byte."""
    return [int(token >= 4) for token in tokens[1:]]


def decode(tokens):
    """Optional: the bytes of text that tokens stand for."""
    return bytes(int(token) - 4 for token in tokens if token >= 4)
