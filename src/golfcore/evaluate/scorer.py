"""The scorer: bits per byte that cannot be wrong.

It is prequential. The scorer holds the text and its bytes; a model only ever supplies full distributions over the
vocabulary. The scorer applies log-softmax itself, books each token's loss once in a ledger, and compares the bytes of
the table with those of the text before it divides. That a model does not look at tokens to come is probed, see
``golfcore.evaluate.probes``.

Windows: with context L and stride S, the first window scores its L tokens, each later one its last S with L - S tokens
of context before them; the last window is moved back so that it ends with the text. No tail is dropped. Every token of
the stream after the first is a target, the marks between documents included: they cost bits and carry no bytes.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from golfcore.errors import InputError, RuleError
from golfcore.model.base import LanguageModel
from golfcore.progress import Tick, silent


@dataclass(frozen=True)
class ScoredText:
    """The text that is scored, as the harness holds it.

    Attributes:
        tokens: uint16 [n], the whole stream, document marks included.
        token_bytes: int64 [n], bytes of text that each token stands for; 0 for marks.
        total_bytes: bytes of the text itself, counted on the text.
        sha256: of the text (or of the shards where there is no text).
    """

    tokens: np.ndarray
    token_bytes: np.ndarray
    total_bytes: int
    sha256: str

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
    """A score and what it rests on; ``val_loss`` in nats per token, ``val_bpb`` in bits per byte of text."""

    val_bpb: float
    val_loss: float
    tokens: int
    bytes: int
    eval_s: float
    context: int
    stride: int
    data_sha256: str
    ledger_sha256: str  # of the loss of every token in order: two runs agree on it or on nothing


@dataclass(frozen=True)
class Window:
    """Inputs ``tokens[start : start + length]``; the last ``scored`` of its targets count."""

    start: int
    length: int
    scored: int


def plan_windows(n_tokens: int, context: int, stride: int) -> list[Window]:
    """Windows that score each of the ``n_tokens - 1`` targets exactly once."""
    targets = n_tokens - 1
    if targets <= context:
        return [Window(0, targets, targets)]
    windows = [Window(0, context, context)]
    done = context
    while done < targets:
        scored = min(stride, targets - done)
        windows.append(Window(done + scored - context, context, scored))
        done += scored
    return windows


def plan_batches(windows: list[Window], batch_tokens: int) -> list[list[Window]]:
    """Windows of one length together, so that no padding enters a model; about ``batch_tokens`` tokens each."""
    by_length: dict[int, list[Window]] = {}
    for window in windows:
        by_length.setdefault(window.length, []).append(window)
    batches = []
    for length, group in by_length.items():
        rows = max(1, batch_tokens // length)
        batches += [group[at : at + rows] for at in range(0, len(group), rows)]
    return batches


class Ledger:
    """When each token was scored, and its loss. A second score of a token, or a missing one, is a RuleError."""

    def __init__(self, n_targets: int) -> None:
        self.loss = np.full(n_targets, np.nan)

    def book(self, first_target: int, losses: np.ndarray) -> None:
        """Books fp64 ``losses`` (nats) of consecutive targets; target i is token i + 1."""
        place = self.loss[first_target : first_target + len(losses)]
        if len(place) != len(losses) or not np.isnan(place).all():
            raise RuleError(f"tokens {first_target + 1} to {first_target + len(losses)} were scored twice")
        if not np.isfinite(losses).all():
            raise RuleError(f"a token near {first_target + 1} got probability 0, or the model gave NaN")
        place[:] = losses

    def close(self) -> np.ndarray:
        """All losses; every token must have been scored."""
        if missing := int(np.isnan(self.loss).sum()):
            raise RuleError(f"{missing} tokens were never scored")
        return self.loss


def score(
    model: LanguageModel,
    text: ScoredText,
    *,
    context: int,
    stride: int = 0,
    batch_tokens: int = 16_384,
    rank: int = 0,
    world_size: int = 1,
    combine: Callable[[Tensor], Tensor] | None = None,
    tick: Tick = silent,
) -> Score:
    """Scores ``text`` under ``model``.

    Args:
        model: gives fp32 logits over the whole vocabulary.
        text: what to score.
        context: tokens a window, L.
        stride: tokens scored a window after the first, S; 0 means L.
        batch_tokens: tokens a forward pass; changes speed and memory, not the score.
        rank, world_size: this process scores every ``world_size``-th batch.
        combine: sums a tensor over the ranks; needed when ``world_size`` is above 1.
        tick: told about batches.

    Raises:
        RuleError: a token scored twice or never, a probability of 0, a vocabulary that does not cover the text.
    """
    if model.training:
        model.eval()
    started = time.perf_counter()
    stride = stride or context
    windows = plan_windows(len(text.tokens), context, stride)
    ledger = Ledger(len(text.tokens) - 1)
    device = next(model.parameters()).device
    # Whole batches go to the ranks: rows are rounded by their batch, and the score must not depend on the ranks.
    mine = plan_batches(windows, batch_tokens)[rank::world_size]
    for done, batch in enumerate(mine, 1):
        _score_batch(model, text.tokens, batch, ledger, device)
        tick(done, len(mine), "batches")
    if world_size > 1:
        _join_ledgers(ledger, combine)
    losses = ledger.close()
    total = math.fsum(losses)
    return Score(
        val_bpb=total / math.log(2) / text.total_bytes,
        val_loss=total / len(losses),
        tokens=len(losses),
        bytes=text.total_bytes,
        eval_s=time.perf_counter() - started,
        context=context,
        stride=stride,
        data_sha256=text.sha256,
        ledger_sha256=hashlib.sha256(losses.tobytes()).hexdigest(),
    )


def _join_ledgers(ledger: Ledger, combine: Callable[[Tensor], Tensor] | None) -> None:
    """Makes each rank's ledger that of all ranks together."""
    if combine is None:
        raise RuleError("scoring on several ranks needs a way to combine their ledgers")
    loss = torch.from_numpy(ledger.loss)
    booked = combine(torch.isfinite(loss).to(torch.float64))
    if (booked > 1).any():
        raise RuleError("two ranks scored the same token")
    ledger.loss = torch.where(booked > 0, combine(torch.nan_to_num(loss)), torch.nan).numpy()


@torch.no_grad()
def _score_batch(
    model: LanguageModel, tokens: np.ndarray, windows: list[Window], ledger: Ledger, device: torch.device
) -> None:
    length = windows[0].length
    ids_BT = np.stack([tokens[w.start : w.start + length + 1] for w in windows]).astype(np.int64)
    ids = torch.from_numpy(ids_BT).to(device)
    logits_BTV, _ = model.logits(model.new_state(len(windows)), ids[:, :-1])
    if logits_BTV.shape[:2] != (len(windows), length) or int(ids.max()) >= logits_BTV.size(2):
        raise RuleError(f"the model gave logits {tuple(logits_BTV.shape)} for ids up to {int(ids.max())}")
    logits_NV = logits_BTV.flatten(0, 1).float()
    target_N = ids[:, 1:].flatten()
    loss_N = torch.logsumexp(logits_NV, 1) - logits_NV.gather(1, target_N[:, None])[:, 0]
    losses_BT = loss_N.view(len(windows), length).double().cpu().numpy()
    for window, row in zip(windows, losses_BT, strict=True):
        ledger.book(window.start + length - window.scored, row[length - window.scored :])
