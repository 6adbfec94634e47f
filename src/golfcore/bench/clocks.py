"""Measure the time and memory of a call: by the wall clock on a processor, by events on a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import torch

from golfcore.ops.memory import peak_bytes

LEAD_S = 0.5e-3  # in which the GPU waits and the host queues what will be timed
MOST_LEAD_S = 0.05  # a call that waits for the GPU itself would need ever more
CYCLES_S = 2e9  # of a GPU's clock, at most


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
    """A clock by events on the current stream of ``device``; other numbers fill its L2 cache before each call.

    The GPU is kept busy while the host queues the call, so that the time of launches does not count: it is the time of
    the GPU's work, as under a CUDA graph. A call that the host does not queue in that time is timed again with a longer
    lead, and so are all after it.
    """

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        size = torch.cuda.get_device_properties(self.device).L2_cache_size
        self._other = torch.empty(2 * size, dtype=torch.uint8, device=self.device)
        self._lead_s = LEAD_S

    def seconds(self, function: Callable[[], object]) -> float:
        with torch.cuda.device(self.device):  # events and the wait are the current device's
            while True:
                taken, queued_s = self._once(function)
                if queued_s < self._lead_s or self._lead_s == MOST_LEAD_S:
                    return taken
                self._lead_s = min(2 * queued_s, MOST_LEAD_S)

    def _once(self, function: Callable[[], object]) -> tuple[float, float]:
        """Return the seconds of the GPU, and those in which the host queued the call."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        self._other.zero_()
        torch.cuda._sleep(int(self._lead_s * CYCLES_S))  # type: ignore[no-untyped-call]
        begun = time.perf_counter()
        start.record()
        result = function()
        end.record()
        queued_s = time.perf_counter() - begun
        end.synchronize()
        del result
        return float(start.elapsed_time(end)) / 1e3, queued_s

    def peak_bytes(self, function: Callable[[], object]) -> int | None:
        """Return the most bytes that torch allocates during the call, above those before it."""
        torch.cuda.synchronize(self.device)
        before = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        function()
        torch.cuda.synchronize(self.device)
        return torch.cuda.max_memory_allocated(self.device) - before
