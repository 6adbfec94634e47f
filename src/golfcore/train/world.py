"""The ranks of a run: one process without torchrun, N with it; gloo between CPUs, NCCL between GPUs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from golfcore.errors import UsageError


@dataclass(frozen=True)
class World:
    """This process's place among the ranks, and the collectives that training needs."""

    rank: int
    size: int
    device: torch.device

    @property
    def primary(self) -> bool:
        """Whether this rank prints and writes."""
        return self.rank == 0

    def mean_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replaces each gradient by its mean over the ranks, through one flat buffer."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        flat /= self.size
        for gradient, piece in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(piece.view_as(gradient))

    def sum(self, value: Tensor) -> Tensor:
        """``value`` summed over the ranks, in place."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def from_primary(self, value: float) -> float:
        """Rank 0's ``value`` on every rank: decisions that read a clock must be one decision."""
        if self.size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(shared, src=0)
        return float(shared)

    def text_from_primary(self, text: str) -> str:
        """Rank 0's ``text`` on every rank."""
        if self.size == 1:
            return text
        shared = [text]
        dist.broadcast_object_list(shared, src=0)
        return shared[0]

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()


@contextmanager
def join_world() -> Iterator[World]:
    """The world that torchrun's environment describes, left again at the end.

    Raises:
        UsageError: more ranks on this machine than it has GPUs.
    """
    size, rank, local = (
        int(os.environ.get(k, d)) for k, d in (("WORLD_SIZE", "1"), ("RANK", "0"), ("LOCAL_RANK", "0"))
    )
    device = torch.device("cpu")
    if torch.cuda.is_available():
        if local >= torch.cuda.device_count():
            raise UsageError(
                f"rank {rank} wants GPU {local}, but this machine has {torch.cuda.device_count()}: "
                f"use --nproc_per_node={torch.cuda.device_count()}"
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    if size == 1:
        yield World(rank=0, size=1, device=device)
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(minutes=5))
    try:
        yield World(rank=rank, size=size, device=device)
    finally:
        dist.destroy_process_group()
