"""Run independent jobs on several threads, each with torch on one, so that results do not depend on the number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

K = TypeVar("K")
V = TypeVar("V")


def in_threads(jobs: Mapping[K, Callable[[], V]], cost: Mapping[K, float], workers: int | None = None) -> dict[K, V]:
    """Run all jobs and return their results in the order of ``jobs``.

    Args:
        jobs: functions by name. An error of one is raised here once those that run have ended; no other is started.
        cost: cost of each job; costly ones start first, so that no thread is left alone with one at the end.
        workers: number of threads; None for as many as torch uses.
    """
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers or before, initializer=torch.set_num_threads, initargs=(1,))
    try:
        futures = {key: pool.submit(jobs[key]) for key in sorted(jobs, key=lambda key: -cost[key])}
        return {key: futures[key].result() for key in jobs}
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)
