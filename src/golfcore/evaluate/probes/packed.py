"""Let a model of ours follow the protocol of the probes: the scorer itself, with its windows and its mixture."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from golfcore.evaluate.booking import Booking, Ranks
from golfcore.evaluate.probes.scorer import Entry, Floats, Numbers, Scorer, Tokens
from golfcore.model.interface import LanguageModel
from golfcore.ops.ngram import NgramMixture
from golfcore.progress import silent

PIECE = 128  # targets per line of the ledger: a few lines for an excerpt


def packed_scorer(
    model: LanguageModel,
    vocab_size: int,
    *,
    context: int,
    stride: int,
    mixture: Callable[[], NgramMixture] | None = None,
    byte_counts: Callable[[Tokens], Numbers] | None = None,
    decode: Callable[[Tokens], bytes] | None = None,
) -> Scorer:
    """Return a model as a scorer that is asked as the scorer of ``score.json`` would score it.

    Args:
        model: the model.
        vocab_size: number of tokens.
        context: tokens per window.
        stride: targets that a window scores after the first.
        mixture: returns a new mixture for each call; None for the model as it is.
        byte_counts: returns the bytes of each of ``tokens[1:]``.
        decode: returns the bytes of tokens.
    """
    model.eval()

    def booked(tokens: Tokens, mixed: NgramMixture | None) -> Booking:
        booking = Booking(model, tokens.astype(np.uint16), context, 0, Ranks(), silent, mixed, piece=PIECE)
        booking.book_until(booking.targets, stride)
        return booking

    def score(tokens: Tokens) -> Floats:
        return booked(tokens, mixture() if mixture else None).close()

    def ledger(tokens: Tokens) -> list[Entry]:
        entries = booked(tokens, mixture() if mixture else None).entries
        return [Entry(*entry.tokens, f"{entry.learned} {entry.state}") for entry in entries]

    def predict(prefix: Tokens) -> Floats:
        tokens = np.append(prefix, 0)  # the score of the last token stands on the same window, whatever it is
        logits_V = _last_logits(model, tokens, context, stride)
        if mixture is None:
            return torch.log_softmax(logits_V.double(), -1).numpy()
        mixed = _AllButLast(mixture(), len(prefix))
        booked(tokens, mixed)
        with np.errstate(divide="ignore"):
            return np.log(mixed.distribution(logits_V.softmax(-1).numpy()).astype(np.float64))

    return Scorer(vocab_size, score, predict, ledger, byte_counts, decode)


@torch.no_grad()
def _last_logits(model: LanguageModel, tokens: Tokens, context: int, stride: int) -> torch.Tensor:
    """Return the fp32 logits [V] of the last token, asked for as its window asks for them."""
    targets = len(tokens) - 1
    scored = targets if targets <= context else (targets - context) % stride or stride
    window = torch.from_numpy(tokens[max(0, targets - context) : targets])[None].to(next(model.parameters()).device)
    return model.last_logits(window, scored)[0, -1].float().cpu()


class _AllButLast(NgramMixture):
    """A mixture that leaves out the last target of a text: its distribution is then the last one."""

    def __init__(self, inner: NgramMixture, targets: int) -> None:
        self._inner, self._left = inner, targets

    def learn(self, tokens_N: NDArray[np.uint16]) -> None:
        self._inner.learn(tokens_N)

    def distribution(self, p_V: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._inner.distribution(p_V)

    def score(
        self, targets_N: NDArray[np.uint16], log_p_N: NDArray[np.float32], top_log_p_N: NDArray[np.float32],
        top_N: NDArray[np.uint16],
    ) -> NDArray[np.float64]:  # fmt: skip
        self._left -= len(targets_N)
        kept = len(targets_N) - (self._left == 0)
        losses = np.zeros(len(targets_N))
        if kept:
            losses[:kept] = self._inner.score(targets_N[:kept], log_p_N[:kept], top_log_p_N[:kept], top_N[:kept])
        return losses
