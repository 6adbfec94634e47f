"""The number of threads that compute, and the cost of a limit on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from golfcore import machine, openmp
from golfcore.ops.registry import HIGHEST_ISA


def fit_threads() -> list[str]:
    """Take no more threads than ``machine.fitting_threads``; return lines for the log on what limits the processor.

    Fewer threads, set by hand (OMP_NUM_THREADS, ``torch.set_num_threads``), stay.
    """
    fit = machine.fitting_threads()
    if torch.get_num_threads() > fit:
        torch.set_num_threads(fit)
    lines = [f"note: {text}" for text in openmp.corrections.values()] + held_back(torch.get_num_threads())
    # A step of pocket_frontier on two cores of a Xeon: 390 ms held to AVX2, 946 with GOLF_ISA=scalar alone, 1,584 with
    # torch, oneDNN and MKL held to SSE as well.
    if HIGHEST_ISA == "scalar":
        lines.append(
            "warning: golfcore's operations run without vector instructions here (AVX2, or NEON on Arm): expect steps "
            "two to four times as long"
        )
    return lines


def held_back(threads: int) -> list[str]:
    """Return a line if a container's quota or a variable leaves cores unused by the ``threads`` that compute."""
    cores, quota = machine.cores(), machine.cpu_quota()
    if quota is not None and quota < cores:
        return [
            f"note: this container may use {quota:g} of {cores} processors: {threads} "
            f"{'thread' if threads == 1 else 'threads'}, about {cores / max(quota, 0.01):.1f} times as slow as without "
            "the limit"
        ]
    named = [name for name in openmp.THREAD_VARIABLES[:2] if name in os.environ]
    if threads < cores and named:
        return [
            f"note: {named[0]} = {threads} of {cores} processors: steps take up to {cores / threads:.1f} times as long "
            "as without it"
        ]
    return []


@contextmanager
def idle_cores_used(ranks: int) -> Iterator[None]:
    """Let torch use every core that this process may run on while the other ``ranks`` wait for it.

    torchrun gives each rank one thread. A process without others keeps the threads that it has.
    """
    before = torch.get_num_threads()
    if ranks > 1:
        torch.set_num_threads(max(before, machine.fitting_threads()))
    try:
        yield
    finally:
        torch.set_num_threads(before)
