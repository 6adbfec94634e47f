"""Time several ways to do the same work, called contenders.

Each round times all contenders in turn, so that a busy moment of the machine hits them alike. Each round takes the next
of several sets of arguments that together exceed the last cache, so that no contender finds its data in the cache.
The machine's memory bandwidth and rate of products are measured in the same run.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from golfcore.bench.clocks import Clock, HostClock
from golfcore.errors import RuleError

NATIVE = "golfcore"  # the contender that the others are compared with


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A piece of work that several contenders do.

    Attributes:
        case: name of the case, such as ``norm/all-pocket`` or ``train_step``.
        dtype: dtype of the arithmetic that ``flops`` counts: ``float32`` or ``bfloat16``.
        shape: the shape, as text for people.
        contenders: name -> ``work(i)`` on the i-th set of arguments; the first is ours.
        check: raises RuleError if a contender's results are wrong; runs before anything is timed.
        sets: number of sets of arguments.
        touched: bytes that the work must read or write at least.
        flops: floating-point operations of the work, if matrix products bound it.
    """

    case: str
    dtype: str
    shape: str
    contenders: Mapping[str, Callable[[int], object]]
    check: Callable[[], None]
    sets: int = 1
    touched: float = 0.0
    flops: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Ceilings:
    """The rates that the machine reaches: bytes/s over arrays beyond the caches, flop/s of large products by dtype."""

    bandwidth: float
    gemm: Mapping[str, float]

    def seconds(self, workload: Workload) -> tuple[float, str]:
        """Return the least seconds that the work can take, and what sets them: ``memory``, ``gemm``, or ``""``."""
        memory = workload.touched / self.bandwidth
        gemm = workload.flops / self.gemm[workload.dtype]
        return max((memory, "memory"), (gemm, "gemm")) if memory or gemm else (0.0, "")


@dataclass(frozen=True, kw_only=True)
class Row:
    """The times of one contender on one workload.

    ``fraction`` is the least possible time over p50; it can be above 1 if a cache keeps data from one pass to the next.
    ``ratio`` is p50 over that of golfcore."""

    case: str
    dtype: str
    shape: str
    backend: str
    p20_us: float
    p50_us: float
    p80_us: float
    peak_bytes: int | None
    gb_s: float | None
    gflop_s: float | None
    ceiling: str
    fraction: float | None
    ratio: float | None
    rounds: int


def last_cache_bytes() -> int:
    """Return the bytes of the largest cache of the first processor; 32 MiB if the system does not say."""
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text(encoding="ascii").strip()
        sizes.append(int(text[:-1]) << {"K": 10, "M": 20, "G": 30}[text[-1]])
    return max(sizes, default=32 << 20)


def measure_ceilings(seconds: float = 0.5, device: str = "cpu", clock: Clock | None = None) -> Ceilings:
    """Measure the ceilings: the best of many short measurements, ``seconds`` for each of three rates.

    Numbers are normal. A GPU multiplies ones faster, since fewer of its wires change: 894 TFLOP/s instead of 788 on an
    H200.
    """
    n, side = max(1 << 24, 2 * last_cache_bytes() // 4), 1024
    if device != "cpu":
        n, side = 1 << 28, 8192
    clock = clock or HostClock()
    generator = torch.Generator(device).manual_seed(0)
    blocks = [torch.randn(1 << 20, device=device, generator=generator) for _ in range(2)]
    x, y = (block.repeat(-(-n // block.numel()))[:n] for block in blocks)
    out = torch.zeros(n, device=device)
    bandwidth = 12 * n / _best(partial(torch.add, x, y, out=out), seconds, clock)
    gemm = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = (torch.randn(side, side, dtype=dtype, device=device, generator=generator) for _ in range(2))
        taken = _best(lambda a=a, b=b: a @ b, seconds, clock)  # type: ignore[misc]
        gemm[str(dtype).removeprefix("torch.")] = 2 * side**3 / taken
    return Ceilings(bandwidth=bandwidth, gemm=gemm)


def _best(function: Callable[[], object], seconds: float, clock: Clock) -> float:
    function()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        best = min(best, clock.seconds(function))
    return best


def sets_beyond_cache(arguments: Mapping[str, Any]) -> int:
    """Return how many sets of such arguments exceed twice the last cache, from 2 to 16."""
    size = sum(v.numel() * v.element_size() for v in arguments.values() if isinstance(v, torch.Tensor))
    return min(16, max(2, -(-2 * last_cache_bytes() // max(1, size))))


def run(
    workload: Workload, ceilings: Ceilings, seconds: float, min_rounds: int = 11, clock: Clock | None = None
) -> list[Row]:
    """Check the contenders, then time them for about ``seconds`` in all.

    Raises:
        RuleError: a contender's results are wrong; nothing was timed.
    """
    clock = clock or HostClock()
    workload.check()
    for work in workload.contenders.values():  # compiles, fills pools
        for i in range(3):
            work(i % workload.sets)
    peaks = {name: clock.peak_bytes(lambda work=work: work(0)) for name, work in workload.contenders.items()}  # type: ignore[misc]
    times = _rounds(workload, seconds, min_rounds, clock)
    least, ceiling = ceilings.seconds(workload)
    ours = statistics.median(times[NATIVE]) if NATIVE in times else None
    return [_row(workload, name, taken, peaks[name], least, ceiling, ours) for name, taken in times.items()]


def _rounds(workload: Workload, seconds: float, min_rounds: int, clock: Clock) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in workload.contenders}
    names = list(times)
    end, done = time.perf_counter() + seconds, 0
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        while done < min_rounds or time.perf_counter() < end:
            shift = done % len(names)  # nobody always follows the same neighbor
            for name in names[shift:] + names[:shift]:
                work = partial(workload.contenders[name], done % workload.sets)
                times[name].append(clock.seconds(work))
            done += 1
    finally:
        if was_enabled:
            gc.enable()
    return times


def _row(
    workload: Workload, name: str, times: Sequence[float], peak: int | None, least: float, ceiling: str,
    ours: float | None,
) -> Row:  # fmt: skip
    p20, p50, p80 = (percentile(times, share) for share in (0.2, 0.5, 0.8))
    return Row(
        case=workload.case, dtype=workload.dtype, shape=workload.shape, backend=name,
        p20_us=round(p20 * 1e6, 2), p50_us=round(p50 * 1e6, 2), p80_us=round(p80 * 1e6, 2), peak_bytes=peak,
        gb_s=round(workload.touched / p50 / 1e9, 3) if workload.touched else None,
        gflop_s=round(workload.flops / p50 / 1e9, 3) if workload.flops else None,
        ceiling=ceiling, fraction=round(least / p50, 4) if least else None,
        ratio=None if ours is None else round(p50 / ours, 4), rounds=len(times),
    )  # fmt: skip


def percentile(values: Sequence[float], share: float) -> float:
    """Return a percentile, linear between the two nearest values."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def require(condition: bool, message: str) -> None:
    """Raise RuleError with ``message`` unless ``condition`` holds."""
    if not condition:
        raise RuleError(message)
