"""Plan the windows of a text, compute the losses of their targets, and book each target once in a ledger."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from golfcore.errors import RuleError
from golfcore.model.interface import LanguageModel
from golfcore.ops.ngram import NgramMixture
from golfcore.progress import Tick

# A forward pass, by device: on a processor the logits of more stay in no cache, a GPU needs more to be busy.
BATCH_TOKENS = {"cpu": 4_096, "cuda": 16_384}
CHUNK_LOGITS = 1 << 18  # of the log-softmax: 1 MB, which stays in a core's cache between its passes
PIECE = 1 << 18  # targets of a ledger entry; so many wait for the mixture at most, 14 bytes each


@dataclass(frozen=True, slots=True)
class Window:
    """A window with inputs ``tokens[start : start + length]``; the last ``scored`` of its targets count."""

    start: int
    length: int
    scored: int


def plan_windows(n_tokens: int, context: int, stride: int, first: int = 0) -> list[Window]:
    """Return windows that score each target from ``first`` to ``n_tokens - 2`` once; target i is token i + 1.

    Args:
        n_tokens: number of tokens of the text, or of a beginning of it.
        context: tokens per window.
        stride: targets that a window scores.
        first: 0, or the end of the windows planned before, which is at least ``context``.
    """
    targets = n_tokens - 1
    windows, done = [], first
    if first == 0:
        done = min(context, targets)
        windows.append(Window(0, done, done))
    while done < targets:
        scored = min(stride, targets - done)
        windows.append(Window(done + scored - context, context, scored))
        done += scored
    return windows


def plan_batches(windows: Sequence[Window], batch_tokens: int) -> list[list[Window]]:
    """Group windows of one shape into batches of about ``batch_tokens`` tokens, in their order."""
    batches: list[list[Window]] = []
    for window in windows:
        last = batches[-1] if batches else []
        alike = last and (last[0].length, last[0].scored) == (window.length, window.scored)
        if alike and len(last) < rows_of(window.length, batch_tokens):
            last.append(window)
        else:
            batches.append([window])
    return batches


def rows_of(length: int, batch_tokens: int) -> int:
    """Return how many windows of ``length`` tokens make a batch."""
    return max(1, batch_tokens // length)


class Predictions(NamedTuple):
    """A model's predictions of N consecutive targets, each made before it was known.

    Attributes:
        log_p_N: fp32 log-probability of each target.
        top_log_p_N: fp32, the largest log-probability at each position.
        top_N: uint16, the token that has it.
    """

    log_p_N: np.ndarray
    top_log_p_N: np.ndarray
    top_N: np.ndarray


class Ledger:
    """A record of each token's loss. Scoring a token twice, or never, is a RuleError."""

    def __init__(self, n_targets: int) -> None:
        self.loss = np.full(n_targets, np.nan)

    def book(self, first_target: int, losses: np.ndarray) -> None:
        """Record fp64 ``losses`` (nats) of consecutive targets; target i is token i + 1."""
        place = self.loss[first_target : first_target + len(losses)]
        if len(place) != len(losses) or not np.isnan(place).all():
            raise RuleError(f"tokens {first_target + 1} to {first_target + len(losses)} were scored twice")
        if not np.isfinite(losses).all():
            raise RuleError(f"a token near {first_target + 1} got probability 0, or the model gave NaN")
        place[:] = losses

    def close(self) -> np.ndarray:
        """Return all losses; raises RuleError if a token was not scored."""
        if missing := int(np.isnan(self.loss).sum()):
            raise RuleError(f"{missing} tokens were never scored")
        return self.loss


@dataclass(frozen=True, slots=True)
class Entry:
    """A piece of the ledger, scored by one state: part of ``score.json``.

    Attributes:
        tokens: the first and the last token of the piece, counted from 0 in the text.
        seconds: seconds that it took, on this rank.
        learned: number of tokens that the mixture had learned before; 0 without a mixture.
        state: hash of these tokens in the order in which they were learned: with the file, all that the state is made
            of. The hash of a piece is the SHA-256 of the one before it and of the uint16 tokens learned since; "" at
            the beginning and without a mixture.
    """

    tokens: tuple[int, int]
    seconds: float
    learned: int = 0
    state: str = ""


@dataclass(frozen=True)
class Ranks:
    """This process's rank among those that share the windows; ``combine`` sums a tensor over all of them."""

    rank: int = 0
    size: int = 1
    combine: Callable[[Tensor], Tensor] | None = None

    def sum(self, value: Tensor) -> Tensor:
        if self.size == 1:
            return value
        if self.combine is None:
            raise RuleError("scoring on several ranks needs a way to combine their ledgers")
        return self.combine(value)

    def slowest(self, seconds: float) -> float:
        """Return the largest of the ranks' ``seconds``, the same number on each rank."""
        if self.size == 1:
            return seconds
        seconds_R = torch.zeros(self.size, dtype=torch.float64)
        seconds_R[self.rank] = seconds
        return float(self.sum(seconds_R).max())


class Booking:
    """A booking of a text's losses from its first target on, in windows that the caller chooses on the way.

    Args:
        model: the model, in evaluation mode.
        tokens: uint16 [n], the whole text.
        context: tokens per window.
        batch_tokens: tokens per forward pass; 0 for ``BATCH_TOKENS``.
        ranks: each books every ``size``-th batch; ``close`` joins their ledgers.
        tick: called with the number of targets so far.
        mixture: mixes counts of the booked tokens into the model's predictions; new, since it learns the text.
        piece: targets of an entry of the ledger, about.

    Attributes:
        entries: the entries of the ledger so far.
    """

    def __init__(
        self, model: LanguageModel, tokens: np.ndarray, context: int, batch_tokens: int, ranks: Ranks, tick: Tick,
        mixture: NgramMixture | None = None, piece: int = 0,
    ) -> None:  # fmt: skip
        self._device = next(model.parameters()).device
        self.context, self.ranks = context, ranks
        self.batch_tokens = batch_tokens or BATCH_TOKENS.get(self._device.type, BATCH_TOKENS["cuda"])
        self.targets, self.done = len(tokens) - 1, 0
        self._model, self._tokens, self._tick = model, tokens, tick
        self._ledger = Ledger(self.targets)
        self._mixture, self._piece = mixture, piece or PIECE
        self.entries: list[Entry] = []
        self._learned, self._state = 0, ""
        if mixture is not None:
            mixture.learn(tokens[:1])  # no target
            self._note(tokens[:1])

    def book_until(self, stop: int, stride: int) -> None:
        """Book the targets up to ``stop``, which is the end of the text or of a whole batch."""
        # Whole batches go to the ranks: rows are rounded by their batch, and the score must not depend on the ranks.
        batches = plan_batches(plan_windows(stop + 1, self.context, stride, self.done), self.batch_tokens)
        for group in _groups(batches, self._piece):
            first, last, began = _first(group[0]), _last(group[-1]), time.perf_counter()
            before = self._learned, self._state
            if self._mixture is not None:
                self._book_mixed(group, self._mixture)
                self._note(self._tokens[first + 1 : last + 1])
            else:
                self._book_fixed(group)
            self.entries.append(Entry((first + 1, last), round(time.perf_counter() - began, 4), *before))
        self.done = stop

    def _note(self, tokens: np.ndarray) -> None:
        """Continue the hash of what the mixture learned."""
        self._learned += len(tokens)
        self._state = hashlib.sha256(self._state.encode() + tokens.astype("<u2").tobytes()).hexdigest()

    def _book_fixed(self, batches: Sequence[Sequence[Window]]) -> None:
        for batch in batches[self.ranks.rank :: self.ranks.size]:
            self._ledger.book(_first(batch), -self._predictions(batch).log_p_N.astype(np.float64))
            self._tick(_last(batch), self.targets, "tokens")

    def _book_mixed(self, batches: Sequence[Sequence[Window]], mixture: NgramMixture) -> None:
        """Book batches through the mixture, which takes the targets of all ranks in the order of the text."""
        first, last = _first(batches[0]), _last(batches[-1])
        found = Predictions(*(np.zeros(last - first, dtype) for dtype in (np.float32, np.float32, np.uint16)))
        own = batches[self.ranks.rank :: self.ranks.size]
        for batch in own:
            place = slice(_first(batch) - first, _last(batch) - first)
            for array, values in zip(found, self._predictions(batch), strict=True):
                array[place] = values
            self._tick(_last(batch), self.targets, "tokens")
        if self.ranks.size > 1:
            joined = (self.ranks.sum(torch.from_numpy(array.astype(np.float64))).numpy() for array in found)
            found = Predictions(*(values.astype(array.dtype) for values, array in zip(joined, found, strict=True)))
        losses = mixture.score(self._tokens[first + 1 : last + 1], *found)
        for batch in own:
            self._ledger.book(_first(batch), losses[_first(batch) - first : _last(batch) - first])

    def stop_after(self, batches: int, stride: int) -> int:
        """Return the target at which ``batches`` more batches end, so that no batch is cut."""
        first = self.context if self.done == 0 and stride < self.context else self.done
        return min(self.targets, first + batches * stride * rows_of(self.context, self.batch_tokens))

    def seconds_per_window(self, stride: int, now: Callable[[], float], batches: int, limit_s: float) -> float:
        """Time windows of this stride without booking them; return the mean of the slowest rank, in seconds.

        Args:
            stride: targets that a window scores.
            now: the timer, in seconds.
            batches: number of batches to time, after one that is not timed.
            limit_s: seconds after which no further batch is begun.
        """
        rows = rows_of(self.context, self.batch_tokens)
        starts = [min(row * stride, self.targets - self.context) for row in range(rows)]
        windows = [Window(start, self.context, stride) for start in starts]
        self._predictions(windows)
        began, done = now(), 0
        while done == 0 or (done < batches and now() - began < limit_s):
            self._predictions(windows)
            done += 1
        return self.ranks.slowest((now() - began) / (done * rows))

    def close(self) -> np.ndarray:
        """Return the losses of all targets, of all ranks; raises RuleError if one was not scored."""
        if self.ranks.size > 1:
            loss = torch.from_numpy(self._ledger.loss)
            booked = self.ranks.sum(torch.isfinite(loss).to(torch.float64))
            if (booked > 1).any():
                raise RuleError("two ranks scored the same token")
            self._ledger.loss = torch.where(booked > 0, self.ranks.sum(torch.nan_to_num(loss)), torch.nan).numpy()
        return self._ledger.close()

    @torch.no_grad()
    def _predictions(self, windows: Sequence[Window]) -> Predictions:
        """Return the model's predictions of the scored targets of windows of one shape, window by window."""
        length, scored = windows[0].length, windows[0].scored
        ids_BT = np.stack([self._tokens[w.start : w.start + length + 1] for w in windows]).astype(np.int64)
        ids = torch.from_numpy(ids_BT).to(self._device)
        logits_BSV = self._model.last_logits(ids[:, :-1], scored)
        if logits_BSV.shape[:2] != (len(windows), scored) or int(ids.max()) >= logits_BSV.size(2):
            raise RuleError(
                f"the model gave logits {tuple(logits_BSV.shape)} for ids up to {int(ids.max())}; expected "
                f"{(len(windows), scored)} rows of a larger vocabulary"
            )
        tops = self._mixture is not None
        found = log_probabilities(logits_BSV.flatten(0, 1), ids[:, -scored:].flatten(), tops=tops)
        log_p_N, top_log_p_N, top_N = (tensor.cpu().numpy() for tensor in found)
        return Predictions(log_p_N, top_log_p_N, top_N.astype(np.uint16))


def _first(batch: Sequence[Window]) -> int:
    """Return the first target that a batch scores."""
    return batch[0].start + batch[0].length - batch[0].scored


def _last(batch: Sequence[Window]) -> int:
    """Return the end of the targets that a batch scores."""
    return batch[-1].start + batch[-1].length


def _groups(batches: Sequence[list[Window]], targets: int) -> Iterator[list[list[Window]]]:
    """Yield consecutive batches in groups that score about ``targets`` targets."""
    group: list[list[Window]] = []
    for batch in batches:
        group.append(batch)
        if _last(batch) - _first(group[0]) >= targets:
            yield group
            group = []
    if group:
        yield group


def log_probabilities(logits_NV: Tensor, target_N: Tensor, *, tops: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``log softmax(logits)`` [N] of the targets and, if asked for, of the likeliest tokens, and these tokens.

    This is the only place where logits become probabilities.
    """
    rows = max(1, CHUNK_LOGITS // logits_NV.size(1)) if logits_NV.device.type == "cpu" else len(target_N)
    log_p, top_log_p, top = [], [], []
    for logits, target in zip(torch.split(logits_NV.float(), rows), torch.split(target_N, rows), strict=True):
        loss = F.cross_entropy(logits, target, reduction="none")
        log_p.append(-loss)
        if tops:
            largest = logits.max(-1)
            top.append(largest.indices)
            top_log_p.append(largest.values - logits.gather(-1, target[:, None])[:, 0] - loss)
    log_p_N = torch.cat(log_p)
    if not tops:
        return log_p_N, log_p_N[:0], target_N[:0]
    return log_p_N, torch.cat(top_log_p), torch.cat(top)
