"""Score a model: compute bits per byte of a text, with checks that make a wrong number an error.

The scorer holds the text and its bytes; a model only supplies distributions over the whole vocabulary, each from the
tokens before (prequential coding). The scorer, not the model, computes log-softmax. It records each token's loss
exactly once, and compares the bytes of the token table with those of the text before it divides.
``golfcore.evaluate.probes`` tests that a model does not look at later tokens.

Windows: with context L and stride S, the first window scores its L tokens, each later one its last S with L - S tokens
of context before them; the last window is moved back so that it ends with the text. No token at the end is dropped.
Every token of the stream after the first is a target, also the marks between documents: they cost bits and carry no
bytes.

A model is asked only for the logits of the scored positions. Nothing is kept from one window to the next: the first
token of a window sees no earlier one, and every hidden state above the first layer depends on where its window begins.
Keys and values kept from the window before would be those of tokens that saw more, which is another score.

With a ``Clock`` the stride may be "auto": the finest that the clock allows (``golfcore.evaluate.clock``), compared
with the clock on the way. If the machine slows down, the rest of the text takes a coarser stride; each token is still
scored once, with at least the context that the coarsest stride leaves it.

With a mixture (``golfcore.ops.ngram``) the model's distribution of each token is mixed with counts of the tokens before
it. They are booked, and only then counted, in the order of the text.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from torch import Tensor

from golfcore.data.contracts import BOS
from golfcore.errors import InputError, RuleError
from golfcore.evaluate.booking import Booking, Entry, Ranks
from golfcore.evaluate.clock import Clock, Pace
from golfcore.evaluate.pacing import book_paced
from golfcore.model.interface import LanguageModel
from golfcore.ops.ngram import NgramMixture
from golfcore.progress import Tick, silent


@dataclass(frozen=True)
class ScoredText:
    """A text to score: its tokens and their bytes.

    Attributes:
        tokens: uint16 [n], the whole stream, document marks included.
        token_bytes: int64 [n], bytes of text that each token stands for; 0 for marks.
        total_bytes: bytes of the text itself, counted on the text.
        sha256: hash of the text, or of the shards if there is no text.
        source: where the text is, for a replay: ``{"text": [...]}`` or ``{"data": ...}``.
        split: what is known of the split, if it is the contest's; empty for any other text.
    """

    tokens: np.ndarray
    token_bytes: np.ndarray
    total_bytes: int
    sha256: str
    source: Mapping[str, Any] = field(default_factory=dict, compare=False)
    split: str = ""

    @property
    def documents(self) -> int:
        """Number of documents: of marks that begin one."""
        return int((self.tokens == BOS).sum())

    def __post_init__(self) -> None:
        if len(self.tokens) < 2:
            raise InputError(f"the validation text has {len(self.tokens)} tokens: there is nothing to score")
        if self.token_bytes.shape != self.tokens.shape:
            raise RuleError(f"{self.token_bytes.shape[0]} byte counts for {len(self.tokens)} tokens")
        counted = int(self.token_bytes[1:].sum())
        if counted != self.total_bytes:
            raise RuleError(
                f"the byte table counts {counted} bytes, the text has {self.total_bytes}: "
                "the tokenizer does not fit the text, and no score would be right"
            )


@dataclass(frozen=True)
class Score:
    """A score and the facts behind it; ``val_loss`` in nats per token, ``val_bpb`` in bits per byte of text.

    ``stride`` is the coarsest that was taken: every token after the first window had ``context - stride`` or more
    before it. ``pace`` has the strides that a clock chose; None without a clock. ``ledger`` says which state scored
    which tokens; ``batch_tokens`` is the size of a forward pass, which decides how the losses are rounded.
    """

    val_bpb: float
    val_loss: float
    tokens: int
    bytes: int
    eval_s: float
    context: int
    stride: int
    data_sha256: str
    ledger_sha256: str  # of the loss of every token in order: two runs agree on it or on nothing
    pace: Pace | None = None
    documents: int = 0
    batch_tokens: int = 0
    ledger: list[Entry] = field(default_factory=list)


def _check_windows(context: int, stride: int | Literal["auto"], clock: Clock | None) -> None:
    if stride == "auto" and clock is None:
        raise InputError('a stride of "auto" needs a clock: give the evaluation a budget, or a stride in tokens')
    if stride != "auto" and not 0 <= stride <= context:
        raise InputError(f"a stride of {stride} tokens: expected at most the context of {context}, or 0 for all of it")


def score(
    model: LanguageModel,
    text: ScoredText,
    *,
    context: int,
    stride: int | Literal["auto"] = 0,
    batch_tokens: int = 0,
    rank: int = 0,
    world_size: int = 1,
    combine: Callable[[Tensor], Tensor] | None = None,
    tick: Tick = silent,
    clock: Clock | None = None,
    finest: int = 1,
    tell: Callable[[str], None] = lambda line: None,
    mixture: NgramMixture | None = None,
    plan: Sequence[tuple[int, int]] = (),
) -> Score:
    """Score ``text`` with ``model``.

    Args:
        model: gives fp32 logits over the whole vocabulary.
        text: what to score.
        context: tokens per window, L.
        stride: tokens scored per window after the first, S; 0 means L; "auto" the finest that ``clock`` allows.
        batch_tokens: tokens per forward pass, 0 for a size that is fast; changes speed and memory, not the score.
        rank, world_size: this process scores every ``world_size``-th batch.
        combine: sums a tensor over the ranks, if there are several.
        tick: called with the number of tokens scored.
        clock: the evaluation's budget. A stride that is a number stays if the budget is too small, with a warning.
        finest: the smallest stride that "auto" may take.
        tell: called with each warning, and with the stride that "auto" took.
        mixture: a new one, which is mixed into the model's predictions and learns the text as it is booked.
        plan: ``(first token, stride)`` pairs that replace ``stride`` and ``clock``: those of an earlier evaluation.

    Raises:
        RuleError: a token scored twice or never, a probability of 0, a vocabulary that does not cover the text.
    """
    _check_windows(context, stride, clock)
    model.eval()
    began = time.perf_counter()
    booking = Booking(model, text.tokens, context, batch_tokens, Ranks(rank, world_size, combine), tick, mixture)
    pace = None
    if plan or clock is None:
        coarsest = _book_planned(booking, plan or [(1, int(stride) or context)])
    else:
        pace = book_paced(booking, clock, stride or context, finest, tell)
        coarsest = max(taken for _, taken in pace.strides)
    return _total(booking, text, pace, coarsest, time.perf_counter() - began)


def _total(booking: Booking, text: ScoredText, pace: Pace | None, coarsest: int, seconds: float) -> Score:
    """Close the ledger and divide by the text's bytes."""
    total = math.fsum(losses := booking.close())
    return Score(
        val_bpb=total / math.log(2) / text.total_bytes,
        val_loss=total / len(losses),
        tokens=len(losses),
        bytes=text.total_bytes,
        eval_s=seconds,
        context=booking.context,
        stride=coarsest,
        data_sha256=text.sha256,
        ledger_sha256=hashlib.sha256(losses.tobytes()).hexdigest(),
        pace=pace,
        documents=text.documents,
        batch_tokens=booking.batch_tokens,
        ledger=booking.entries,
    )


def _book_planned(booking: Booking, plan: Sequence[tuple[int, int]]) -> int:
    """Book the whole text with strides from given tokens on, and return the coarsest."""
    for (_, stride), (following, _) in pairwise([*plan, (booking.targets + 1, 0)]):
        booking.book_until(following - 1, stride)
    return max(stride for _, stride in plan)
