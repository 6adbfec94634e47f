"""The number of threads that compute, and the cost of a limit on it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from golfcore import machine
from golfcore.ops.registry import HIGHEST_ISA


def fit_threads() -> list[str]:
    """Take no more threads than a container's quota serves; return lines for the log on what limits the processor.

    Threads above the quota would all be stopped for part of every 0.1 s, in the middle of the work that the others wait
    for. Threads set by hand (OMP_NUM_THREADS) stay.
    """
    lines = []
    cores, quota, threads = machine.cores(), machine.cpu_quota(), torch.get_num_threads()
    if quota is not None and quota < threads and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, math.floor(quota)))
        lines.append(
            f"note: this container may use {quota:g} of {cores} processors: {torch.get_num_threads()} threads, about "
            f"{cores / max(quota, 0.01):.1f} times as slow as without the limit"
        )
    elif threads < cores and "OMP_NUM_THREADS" in os.environ:
        lines.append(
            f"note: OMP_NUM_THREADS = {threads} of {cores} processors: steps take up to {cores / threads:.1f} times as "
            "long as without it"
        )
    # A step of pocket_frontier on two cores of a Xeon: 390 ms held to AVX2, 946 with GOLF_ISA=scalar alone, 1,584 with
    # torch, oneDNN and MKL held to SSE as well.
    if HIGHEST_ISA == "scalar":
        lines.append(
            "warning: golfcore's operations run without vector instructions here (AVX2, or NEON on Arm): expect steps "
            "two to four times as long"
        )
    return lines


@contextmanager
def idle_cores_used(ranks: int) -> Iterator[None]:
    """Let torch use every core that this process may run on while the other ``ranks`` wait for it.

    torchrun gives each rank one thread. A process without others keeps the threads that it has.
    """
    before, quota = torch.get_num_threads(), machine.cpu_quota()
    usable = machine.cores() if quota is None else max(1, min(machine.cores(), math.floor(quota)))
    if ranks > 1:
        torch.set_num_threads(max(before, usable))
    try:
        yield
    finally:
        torch.set_num_threads(before)
