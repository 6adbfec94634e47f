"""Stand in for ``golfcore.ranks.world``: one process, or those that torchrun started."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch import Tensor


class World:
    """This process's place among the ranks, and the sums over them."""

    def __init__(self) -> None:
        self.rank, self.size = (int(os.environ.get(key, n)) for key, n in (("RANK", 0), ("WORLD_SIZE", 1)))
        gpu = torch.cuda.is_available()
        self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if gpu else torch.device("cpu")
        if gpu:
            torch.cuda.set_device(self.device)
        if self.size > 1:
            dist.init_process_group("nccl" if gpu else "gloo")

    def print(self, *words: object) -> None:
        """Print a line of the log on rank 0."""
        if self.rank == 0:
            print(*words, flush=True)

    def synchronize(self) -> None:
        """Wait for all work on the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def sum(self, value: Tensor) -> Tensor:
        """Sum a tensor over the ranks, in place."""
        if self.size > 1:
            moved = value.to(self.device)
            dist.all_reduce(moved)
            value.copy_(moved)
        return value

    def largest(self, *values: float) -> tuple[float, ...]:
        """Return the largest of each value over the ranks."""
        if self.size == 1:
            return values
        all_ = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(all_, dist.ReduceOp.MAX)
        return tuple(all_.tolist())
