"""Load batches from token shards: the same batches for any number of ranks, prefetched, resumable at any batch.

There are four orders. ``sequential`` reads the stream as the contest's own loader does. ``shuffled`` visits windows of
``seq_len`` tokens in a new random order in each epoch, which learns more from small data. ``coprime`` visits windows at
a stride that has no divisor in common with their number, another stride in each epoch, and holds no permutation in
memory. These three see each token as a target once per epoch, but for the few that fill no whole window. ``random``
draws windows from anywhere, with replacement. A batch is a pure function of the number of tokens handed out before it
and of its own shape, so the position is one number, and a run may change the shape of its batches. Where a model keeps
documents apart, the thread that prefetches also finds the bounds of their segments.
"""

from __future__ import annotations

import math
import queue
import threading
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from golfcore.data.contracts import Documents, Ids, TokenBatch, TokenSource
from golfcore.data.segments import segment_bounds
from golfcore.errors import InputError, UsageError

Order = Literal["sequential", "shuffled", "coprime", "random"]


class TokenLoader:
    """An endless iterator of ``TokenBatch``; the data repeat.

    A step covers ``batch_tokens`` over all ranks; rank r of w gets the r-th of w equal parts, so B is
    ``batch_tokens / (world * seq_len)``. Batches are made ahead by a thread; ``close`` ends it.
    """

    def __init__(
        self,
        shards: TokenSource,
        *,
        batch_tokens: int,
        seq_len: int,
        rank: int = 0,
        world: int = 1,
        order: Order = "sequential",
        seed: int = 0,
        prefetch: int = 2,
    ) -> None:
        """Place the loader before the first batch.

        Args:
            seed: seed of the order; unused in sequential order.
            prefetch: number of batches kept ready.

        Raises:
            UsageError: sizes that do not divide, a rank outside the world, an unknown order.
            InputError: fewer tokens than one batch.
        """
        if order not in typing.get_args(Order):
            raise UsageError(f"order = {order!r}: expected one of {', '.join(typing.get_args(Order))}")
        if not 0 <= rank < world:
            raise UsageError(f"rank = {rank} of world = {world}: expected 0 <= rank < world")
        if prefetch < 1:
            raise UsageError(f"prefetch = {prefetch}: expected 1 or more")
        self._shards, self._order, self._seed = shards, order, seed
        self._rank, self._world, self._prefetch = rank, world, prefetch
        self._epochs: dict[tuple[int, int], tuple[int, int, NDArray[np.int64]]] = {}
        self._position = 0  # tokens handed out, over all ranks
        self._worker: _Prefetcher | None = None
        self._batch_tokens = self._seq_len = 0
        self._documents: Documents | None = None
        self.reshape(batch_tokens, seq_len)

    def reshape(self, batch_tokens: int, seq_len: int, documents: Documents | None = None) -> None:
        """Set the shape of the next batch and those after it; batches prefetched in another shape are made again.

        Args:
            batch_tokens: tokens of a step, over all ranks.
            seq_len: tokens per row.
            documents: how rows are cut into segments; None if they are not.

        Raises:
            UsageError: sizes that do not divide.
            InputError: fewer tokens than one batch.
        """
        if (batch_tokens, seq_len, documents) == (self._batch_tokens, self._seq_len, self._documents):
            return
        if min(batch_tokens, seq_len) < 1 or batch_tokens % (self._world * seq_len):
            raise UsageError(
                f"batch_tokens = {batch_tokens}: expected a positive multiple of seq_len x ranks = "
                f"{seq_len} x {self._world}"
            )
        if len(self._shards) < batch_tokens + 1:
            raise InputError(
                f"{len(self._shards):,} tokens of data, expected at least one batch, {batch_tokens + 1:,}; "
                "give more text or a smaller batch_tokens"
            )
        self.close()
        self._batch_tokens, self._seq_len, self._documents = batch_tokens, seq_len, documents

    def __iter__(self) -> Iterator[TokenBatch]:
        return self

    def __next__(self) -> TokenBatch:
        batch = self._running().take()
        self._position += self._batch_tokens
        return batch

    def peek(self) -> TokenBatch:
        """Return the batch that comes next, the same object, and leave the position where it is."""
        return self._running().peek()

    def _running(self) -> _Prefetcher:
        if self._worker is None:
            self._worker = _Prefetcher(self._make, self._position, self._batch_tokens, self._prefetch)
        return self._worker

    def __enter__(self) -> TokenLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the thread; asking for the next batch starts it again at the same position."""
        if self._worker is not None:
            self._worker.stop()
            self._worker = None

    def state_dict(self) -> dict[str, Any]:
        """Return the position of the next batch that was not handed out, with the data, order and seed it belongs to.

        Ranks, world and the shape of batches are not part of it: a run may go on with other ones.
        """
        return {"position": self._position, **self._stream()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to the position of a ``state_dict``.

        Raises:
            InputError: the state belongs to another stream of batches (data, order or seed).
        """
        for key, own in self._stream().items():
            if state.get(key) != own:
                raise InputError(f"loader state has {key} = {state.get(key)!r}, this run {own!r}; resume with the same")
        position = state.get("position")
        if not isinstance(position, int) or position < 0:
            raise InputError(f"loader state has position = {position!r}; expected a number from 0")
        self.close()
        self._position = position

    def _stream(self) -> dict[str, Any]:
        return {"tokens": len(self._shards), "order": self._order, "seed": self._seed}

    def _make(self, position: int) -> TokenBatch:
        """Return this rank's batch at ``position``; it depends on nothing but the position and the shape."""
        inputs_BT, targets_BT = self._rows(position)
        bounds = None if self._documents is None else segment_bounds(inputs_BT, self._documents)
        return TokenBatch(inputs_BT, targets_BT, bounds)

    def _rows(self, position: int) -> tuple[Ids, Ids]:
        share, length = self._batch_tokens // self._world, self._seq_len
        if self._order == "sequential":
            ids = self._ring(position + self._rank * share, share + 1)
            return ids[:-1].reshape(-1, length), ids[1:].reshape(-1, length)
        rows, all_rows = share // length, self._batch_tokens // length
        mine = range(self._rank * rows, (self._rank + 1) * rows)
        if self._order == "random":
            rng = np.random.default_rng((self._seed, position))
            starts = rng.integers(len(self._shards) - length, size=all_rows)[mine.start : mine.stop].tolist()
        else:
            starts = [self._window(position // length + n) for n in mine]
        ids_BT1 = np.stack([self._ring(start, length + 1) for start in starts])
        return ids_BT1[:, :-1].copy(), ids_BT1[:, 1:].copy()

    def _ring(self, start: int, count: int) -> Ids:
        """Return ``count`` tokens from ``start``, as if the stream repeated for ever."""
        start %= len(self._shards)
        out = np.empty(count, dtype=np.uint16)
        head = self._shards[start : start + count]
        out[: len(head)] = head
        out[len(head) :] = self._shards[: count - len(head)]  # one batch fits the data: at most one wrap
        return out

    def _window(self, number: int) -> int:
        """Return the token at which window ``number`` of the shuffled or coprime order starts."""
        windows = len(self._shards) // self._seq_len  # an epoch
        epoch, at = divmod(number, windows)
        key = (self._seq_len, epoch)
        if key not in self._epochs:
            rng = np.random.default_rng((self._seed, epoch))
            offset = int(rng.integers(self._seq_len))  # a new one each epoch cuts the text at new places
            if self._order == "shuffled":
                fresh = offset, 0, rng.permutation(windows)
            else:
                stride = next(s for s in rng.integers(1, windows + 1, size=1000).tolist() if math.gcd(s, windows) == 1)
                fresh = offset, stride, np.array([rng.integers(windows)])
            # A batch spans few epochs; keeping the last two bounds the memory.
            self._epochs = {k: v for k, v in self._epochs.items() if k == (self._seq_len, epoch - 1)} | {key: fresh}
        offset, stride, order = self._epochs[key]
        window = (int(order[0]) + at * stride) % windows if stride else int(order[at])
        return offset + window * self._seq_len


class _Prefetcher:
    """Makes batches ahead in a thread, in order; ``peek`` and ``take`` raise an error that happened there."""

    def __init__(self, make: Callable[[int], TokenBatch], position: int, stride: int, depth: int) -> None:
        self._ready: queue.Queue[TokenBatch | BaseException] = queue.Queue(maxsize=depth)
        self._next: TokenBatch | BaseException | None = None  # out of the queue, and not taken
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._work, args=(make, position, stride), name="token-loader", daemon=True
        )
        self._thread.start()

    def peek(self) -> TokenBatch:
        if self._next is None:
            self._next = self._ready.get()
        if isinstance(self._next, BaseException):
            raise self._next
        return self._next

    def take(self) -> TokenBatch:
        batch = self.peek()
        self._next = None
        return batch

    def stop(self) -> None:
        self._stopped.set()
        while self._thread.is_alive():
            try:
                self._ready.get_nowait()  # a full queue may be what the thread waits for
            except queue.Empty:
                self._thread.join(timeout=0.01)

    def _work(self, make: Callable[[int], TokenBatch], position: int, stride: int) -> None:
        while not self._stopped.is_set():
            try:
                item: TokenBatch | BaseException = make(position)
            except BaseException as error:
                item = error
            self._ready.put(item)
            if isinstance(item, BaseException):
                return
            position += stride
