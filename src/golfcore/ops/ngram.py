"""An online n-gram expert whose counts are mixed into a model's next-token distributions, compiled (``csrc/ngram``)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from golfcore import _core
from golfcore.errors import InputError

MAX_ORDER = _core.NGRAM_MAX_ORDER


class NgramMixture:
    """A mixture of a model with counts of the tokens that were already scored, one text from its start to its end.

    The counts are those of the document, of the whole text, and of what followed each context of up to ``order``
    tokens. They are mixed in one after the other, each with a weight that depends on the past and on the model's
    distribution alone and that is learned after a target was scored (AdaGrad on its log-loss). So the mixture is a
    distribution over the whole vocabulary before the target is known: ``distribution`` returns it.

    The chain of orders is that of PPM (Cleary and Witten, 1984) from the lowest order up, with gates instead of escape
    counts; gates chosen by contexts are those of PAQ's mixers (Mahoney, 2005).

    Args:
        vocab_size: number of tokens, at most 65,536.
        order: longest context in tokens, 1 to ``MAX_ORDER``.
        bos: the token that starts a document; no context reaches back over it.
        max_contexts: contexts that are kept at most, about 100 bytes each; later ones are not added.
        rate: learning rate of the weights.
        bias: logit of the weights at the start.

    Raises:
        InputError: a value out of range.
    """

    def __init__(
        self,
        vocab_size: int,
        *,
        order: int = 8,
        bos: int = 1,
        max_contexts: int = 1 << 22,
        rate: float = 0.2,
        bias: float = -3.0,
    ) -> None:
        try:
            self._native = _core.NgramMixture(vocab_size, order, bos, max_contexts, rate, bias)
        except (TypeError, ValueError) as error:
            raise InputError(f"n-gram mixture of order {order} over {vocab_size} tokens: {error}") from error

    def learn(self, tokens_N: NDArray[np.uint16]) -> None:
        """Take in tokens that are not scored, such as the first of a text."""
        self._native.learn(tokens_N)

    def distribution(self, p_V: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the mixed distribution of the next token, [V], given the model's; nothing is learned."""
        top = int(p_V.argmax())
        return self._native.distribution(p_V, float(np.log(p_V[top])), top)

    def score(
        self,
        targets_N: NDArray[np.uint16],
        log_p_N: NDArray[np.float32],
        top_log_p_N: NDArray[np.float32],
        top_N: NDArray[np.uint16],
    ) -> NDArray[np.float64]:
        """Return the losses of consecutive targets in nats; each is learned before the next is scored.

        Args:
            targets_N: the targets.
            log_p_N: the model's log-probability of each.
            top_log_p_N: the largest of the model's log-probabilities at each position.
            top_N: the token that has it.
        """
        return self._native.score(targets_N, log_p_N, top_log_p_N, top_N)

    @property
    def learned(self) -> int:
        """Number of tokens that were learned."""
        return self._native.learned()
