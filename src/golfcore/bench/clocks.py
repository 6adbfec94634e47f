"""Measure the time and memory of a call: by the wall clock on a processor, by events on a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import torch

from golfcore.ops.memory import peak_bytes

LEAD_CYCLES = 1_000_000  # about half a millisecond in which the GPU waits and the host queues what will be timed


class Clock(Protocol):
    """Measures one call."""

    def seconds(self, function: Callable[[], object]) -> float: ...

    def peak_bytes(self, function: Callable[[], object]) -> int | None: ...


class HostClock:
    """A clock of wall time, from call to return; the result is freed afterwards, off the clock."""

    def seconds(self, function: Callable[[], object]) -> float:
        start = time.perf_counter()
        result = function()
        taken = time.perf_counter() - start
        del result
        return taken

    def peak_bytes(self, function: Callable[[], object]) -> int | None:
        return peak_bytes(function)


class DeviceClock:
    """A clock by events on the current stream of a GPU; other numbers fill its L2 cache before each call.

    The GPU is kept busy while the host queues the call, so that the time of launches does not count: it is the time of
    the GPU's work, as under a CUDA graph, unless the host needs longer than that to queue the call.
    """

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        size = torch.cuda.get_device_properties(self.device).L2_cache_size
        self._other = torch.empty(2 * size, dtype=torch.uint8, device=self.device)

    def seconds(self, function: Callable[[], object]) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        self._other.zero_()
        torch.cuda._sleep(LEAD_CYCLES)  # type: ignore[no-untyped-call]
        start.record()
        result = function()
        end.record()
        end.synchronize()
        del result
        return float(start.elapsed_time(end)) / 1e3

    def peak_bytes(self, function: Callable[[], object]) -> int | None:
        """Return the most bytes that torch allocates during the call, above those before it."""
        torch.cuda.synchronize(self.device)
        before = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        function()
        torch.cuda.synchronize(self.device)
        return torch.cuda.max_memory_allocated(self.device) - before
