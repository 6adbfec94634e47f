"""Batches from token shards: the same ones for any number of ranks, prefetched, and resumable to the batch.

``sequential`` reads the stream as the contest's own loader does; ``shuffled`` visits windows of ``seq_len`` tokens in a
new random order each epoch, which learns more from small data. Both see each token as a target once an epoch, but for
the few that fill no whole window when shuffled. Step ``n`` is a pure function of ``n``, so the position is one number.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from golfcore.data.shards import ShardSet
from golfcore.errors import InputError, UsageError

Batch = tuple[NDArray[np.int64], NDArray[np.int64]]
Order = Literal["sequential", "shuffled"]


class TokenLoader:
    """An endless iterator of ``(inputs_BT, targets_BT)``, int64, targets one token ahead; wraps at the end of the data.

    A step covers ``batch_tokens`` over all ranks; rank r of w gets the r-th of w equal parts, so B is
    ``batch_tokens / (world * seq_len)``. Batches are made ahead by a thread; ``close`` ends it.
    """

    def __init__(
        self,
        shards: ShardSet,
        *,
        batch_tokens: int,
        seq_len: int,
        rank: int = 0,
        world: int = 1,
        order: Order = "sequential",
        seed: int = 0,
        prefetch: int = 2,
    ) -> None:
        """
        Args:
            seed: of the shuffled order; unused in sequential order.
            prefetch: batches kept ready.

        Raises:
            UsageError: sizes that do not divide, a rank outside the world, an unknown order.
            InputError: fewer tokens than one batch.
        """
        if order not in ("sequential", "shuffled"):
            raise UsageError(f"order = {order!r}: expected 'sequential' or 'shuffled'")
        if not 0 <= rank < world:
            raise UsageError(f"rank = {rank} of world = {world}: expected 0 <= rank < world")
        if min(batch_tokens, seq_len, prefetch) < 1 or batch_tokens % (world * seq_len):
            raise UsageError(
                f"batch_tokens = {batch_tokens}: expected a positive multiple of seq_len x ranks = {seq_len} x {world}"
            )
        if len(shards) < batch_tokens + 1:
            raise InputError(
                f"{len(shards):,} tokens of data, expected at least one batch, {batch_tokens + 1:,}; "
                "give more text or a smaller batch_tokens"
            )
        self._shards, self._seq_len, self._order, self._seed = shards, seq_len, order, seed
        self._batch_tokens, self._rank, self._world = batch_tokens, rank, world
        self._windows = len(shards) // seq_len  # an epoch of shuffled order
        self._epochs: dict[int, tuple[int, NDArray[np.int64]]] = {}
        self._step = 0  # of the next batch to hand out
        self._prefetch = prefetch
        self._worker: _Prefetcher | None = None

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._worker is None:
            self._worker = _Prefetcher(self._make, self._step, self._prefetch)
        batch = self._worker.take()
        self._step += 1
        return batch

    def __enter__(self) -> TokenLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the thread; the next batch asked for starts it again at the same position."""
        if self._worker is not None:
            self._worker.stop()
            self._worker = None

    def state_dict(self) -> dict[str, Any]:
        """The position of the next batch not yet handed out, whatever was prefetched, and what it depends on.

        Ranks and world are no part of it: a run may go on with another number of ranks.
        """
        return {"step": self._step, **self._stream()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes to the position of ``state_dict``.

        Raises:
            InputError: the state is of another stream of batches (data, batch, order or seed).
        """
        for key, own in self._stream().items():
            if state.get(key) != own:
                raise InputError(f"loader state has {key} = {state.get(key)!r}, this run {own!r}; resume with the same")
        step = state.get("step")
        if not isinstance(step, int) or step < 0:
            raise InputError(f"loader state has step = {step!r}; expected a number from 0")
        self.close()
        self._step = step

    def _stream(self) -> dict[str, Any]:
        return {
            "tokens": len(self._shards),
            "batch_tokens": self._batch_tokens,
            "seq_len": self._seq_len,
            "order": self._order,
            "seed": self._seed,
        }

    def _make(self, step: int) -> Batch:
        """This rank's batch of a step; a pure function of ``step``."""
        share = self._batch_tokens // self._world
        if self._order == "sequential":
            ids = self._ring(step * self._batch_tokens + self._rank * share, share + 1)
            return ids[:-1].reshape(-1, self._seq_len), ids[1:].reshape(-1, self._seq_len)
        rows = share // self._seq_len
        first = step * (self._batch_tokens // self._seq_len) + self._rank * rows
        ids_BT1 = np.stack([self._ring(self._window(n), self._seq_len + 1) for n in range(first, first + rows)])
        return ids_BT1[:, :-1].copy(), ids_BT1[:, 1:].copy()

    def _ring(self, start: int, count: int) -> NDArray[np.int64]:
        """``count`` tokens from ``start``, as if the stream were repeated for ever."""
        start %= len(self._shards)
        out = np.empty(count, dtype=np.int64)
        head = self._shards[start : start + count]
        out[: len(head)] = head
        out[len(head) :] = self._shards[: count - len(head)]  # one batch fits the data: at most one wrap
        return out

    def _window(self, number: int) -> int:
        """Where window ``number`` of the shuffled order starts."""
        epoch, at = divmod(number, self._windows)
        if epoch not in self._epochs:
            rng = np.random.default_rng((self._seed, epoch))
            # A new offset an epoch cuts the text at new places.
            fresh = int(rng.integers(self._seq_len)), rng.permutation(self._windows)
            # A batch spans few epochs; keeping the last two bounds the memory.
            self._epochs = {k: v for k, v in self._epochs.items() if k == epoch - 1} | {epoch: fresh}
        offset, order = self._epochs[epoch]
        return offset + int(order[at]) * self._seq_len


class _Prefetcher:
    """Makes batches ahead in a thread, in order; what goes wrong there is raised by ``take``."""

    def __init__(self, make: Callable[[int], Batch], step: int, depth: int) -> None:
        self._ready: queue.Queue[Batch | BaseException] = queue.Queue(maxsize=depth)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(make, step), name="token-loader", daemon=True)
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

    def _work(self, make: Callable[[int], Batch], step: int) -> None:
        while not self._stopped.is_set():
            try:
                item: Batch | BaseException = make(step)
            except BaseException as error:
                item = error
            self._ready.put(item)
            if isinstance(item, BaseException):
                return
            step += 1
