"""Load batches from token shards: the same batches for any number of ranks, prefetched, resumable at any batch.

There are four orders. ``sequential`` reads the stream as the contest's own loader does. ``shuffled`` visits windows of
``seq_len`` tokens in a new random order in each epoch, which learns more from small data. ``coprime`` visits windows at
a stride that has no divisor in common with their number, another stride in each epoch, and holds no permutation in
memory. These three see each token as a target once per epoch, but for the few that fill no whole window. ``random``
draws windows from anywhere, with replacement. A batch is a pure function of the number of tokens handed out before it
and of its own shape, so the position is one number, and a run may change the shape of its batches.
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

from golfcore.data.contracts import TokenSource
from golfcore.errors import InputError, UsageError

Batch = tuple[NDArray[np.int64], NDArray[np.int64]]
Order = Literal["sequential", "shuffled", "coprime", "random"]


class TokenLoader:
    """An endless iterator of ``(inputs_BT, targets_BT)``, int64; targets are one token ahead, and the data repeat.

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
        self.reshape(batch_tokens, seq_len)

    def reshape(self, batch_tokens: int, seq_len: int) -> None:
        """Set the shape of the next batch and those after it; batches prefetched in another shape are made again.

        Raises:
            UsageError: sizes that do not divide.
            InputError: fewer tokens than one batch.
        """
        if (batch_tokens, seq_len) == (self._batch_tokens, self._seq_len):
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
        self._batch_tokens, self._seq_len = batch_tokens, seq_len

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._worker is None:
            self._worker = _Prefetcher(self._make, self._position, self._batch_tokens, self._prefetch)
        batch = self._worker.take()
        self._position += self._batch_tokens
        return batch

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

    def _make(self, position: int) -> Batch:
        """Return this rank's batch at ``position``; it depends on nothing but the position and the shape."""
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

    def _ring(self, start: int, count: int) -> NDArray[np.int64]:
        """Return ``count`` tokens from ``start``, as if the stream repeated for ever."""
        start %= len(self._shards)
        out = np.empty(count, dtype=np.int64)
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
    """Makes batches ahead in a thread, in order; ``take`` raises an error that happened there."""

    def __init__(self, make: Callable[[int], Batch], position: int, stride: int, depth: int) -> None:
        self._ready: queue.Queue[Batch | BaseException] = queue.Queue(maxsize=depth)
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._work, args=(make, position, stride), name="token-loader", daemon=True
        )
        self._thread.start()

    def take(self) -> Batch:
        item = self._ready.get()
        if isinstance(item, BaseException):
            self._ready.put(item)  # for whoever asks again
            raise item
        return item

    def stop(self) -> None:
        self._stopped.set()
        while self._thread.is_alive():
            try:
                self._ready.get_nowait()  # a full queue may be what the thread waits for
            except queue.Empty:
                self._thread.join(timeout=0.01)

    def _work(self, make: Callable[[int], Batch], position: int, stride: int) -> None:
        while not self._stopped.is_set():
            try:
                item: Batch | BaseException = make(position)
            except BaseException as error:
                item = error
            self._ready.put(item)
            if isinstance(item, BaseException):
                return
            position += stride
