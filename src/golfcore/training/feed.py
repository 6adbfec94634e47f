"""Bring batches to the device of the training, and keep the processor a little ahead of a GPU, but never far.

A GPU must not wait for its batches: they travel in pinned memory, as the uint16 that the shards hold, on a stream of
their own, while the GPU works on the step before. And the processor must not wait for the GPU, unless it would begin a
step while two others are unfinished: there it would only fill memory, and the clock would tell of steps yet to come.
"""

from __future__ import annotations

import contextlib
from collections import deque
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from golfcore.data.contracts import Ids, TokenBatch
from golfcore.data.segments import bounds_of_rows
from golfcore.model.interface import Batch
from golfcore.training.saving import BatchLoader


def batches_of(host: TokenBatch, rows: int, device: torch.device) -> list[Batch]:
    """Copy a rank's share of a step to ``device`` and cut it into micro-batches of ``rows`` rows.

    On a GPU the copies begin on the current stream, from pinned memory, and nothing waits for them.
    """
    inputs_BT, targets_BT = widened(host.inputs_BT, device), widened(host.targets_BT, device)
    count, length = host.inputs_BT.shape
    found = []
    for first in range(0, count, rows):
        last, bounds = min(first + rows, count), None
        if host.bounds is not None:
            bounds = _moved(bounds_of_rows(host.bounds, first * length, last * length), device)
        found.append(Batch(inputs_BT[first:last], targets_BT[first:last], bounds))
    return found


def widened(ids: Ids, device: torch.device) -> Tensor:
    """Return uint16 ids as int64 on ``device``; they travel as int16, which every operator of torch knows."""
    return _moved(ids.view(np.int16), device).to(torch.int64).bitwise_and_(0xFFFF)


def _moved(array: NDArray[Any], device: torch.device) -> Tensor:
    host = torch.from_numpy(array)
    return host if device.type == "cpu" else host.pin_memory().to(device, non_blocking=True)


class Feed:
    """The batches of a training on its device, on a GPU one ahead of the step that reads them.

    The batch ahead is only looked at, not taken: the loader's position stays that of the next step, and a batch that
    the loader has made again, in another shape or at another position, is copied again.
    """

    def __init__(self, loader: BatchLoader, device: torch.device) -> None:
        self._loader, self._device = loader, device
        self._stream: Any = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._ahead: tuple[TokenBatch, int, list[Batch]] | None = None

    def take(self, rows: int) -> list[Batch]:
        """Return this rank's next share of a step in micro-batches of ``rows`` rows."""
        host = next(self._loader)
        ahead, self._ahead = self._ahead, None
        if ahead is None or ahead[0] is not host or ahead[1] != rows:
            ahead = host, rows, self._copied(host, rows)
        if self._stream is not None:
            current = torch.cuda.current_stream(self._device)
            current.wait_stream(self._stream)
            for tensor in (t for batch in ahead[2] for t in batch if t is not None):
                tensor.record_stream(current)  # its memory is that stream's, and in use on this one
        return ahead[2]

    def copy_ahead(self, rows: int) -> None:
        """Begin to copy the batch after the last one taken; on a CPU there is nothing to gain."""
        if self._stream is not None:
            host = self._loader.peek()
            self._ahead = host, rows, self._copied(host, rows)

    def _copied(self, host: TokenBatch, rows: int) -> list[Batch]:
        with contextlib.nullcontext() if self._stream is None else torch.cuda.stream(self._stream):
            return batches_of(host, rows, self._device)


class RunAhead:
    """The steps that the processor has handed to a GPU and that are not finished; on a CPU there are none."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._ends: deque[Any] = deque()

    def note_step(self) -> None:
        """Note that a step was handed over; wait until the one before it is finished."""
        if self._device.type != "cuda":
            return
        end = torch.cuda.Event()  # type: ignore[no-untyped-call]
        end.record(torch.cuda.current_stream(self._device))
        self._ends.append(end)
        while len(self._ends) > 1:
            self._ends.popleft().synchronize()

    @property
    def unfinished(self) -> int:
        """Return the number of steps that may be unfinished."""
        return len(self._ends)

    def finish(self) -> None:
        """Wait for all work on the device."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._ends.clear()
