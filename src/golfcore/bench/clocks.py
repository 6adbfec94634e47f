"""How long a call takes, and how much memory: on the processor by the wall, on a GPU by its own events."""

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
    """Wall time, from call to return; its result is freed afterwards, off the clock."""

    def seconds(self, function: Callable[[], object]) -> float:
        start = time.perf_counter()
        result = function()
        taken = time.perf_counter() - start
        del result
        return taken

    def peak_bytes(self, function: Callable[[], object]) -> int | None:
        return peak_bytes(function)


class DeviceClock:
    """Events on the current stream of a GPU, its L2 cache filled with other numbers before each call.

    The GPU is kept busy while the host queues the call, so that launches cost the host nothing here: what is timed is
    the GPU's work, as under a CUDA graph, unless a call takes the host longer than that.
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
        """Allocated by torch above what was there before the call."""
        torch.cuda.synchronize(self.device)
        before = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        function()
        torch.cuda.synchronize(self.device)
        return torch.cuda.max_memory_allocated(self.device) - before
