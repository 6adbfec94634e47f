"""The ranks of a run: one process without torchrun, N with it; gloo between CPUs, NCCL between GPUs.

``join_world`` meets the other ranks at the rendezvous, compares facts that must be alike, and starts the monitor
(``golfcore.ranks.monitor``), which ends the run if a rank is lost. Waits for collectives are inside the monitor's
``waiting``, so that an error names the missing rank instead of the call that waited for it.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from golfcore.errors import GolfError, RankError, UsageError
from golfcore.ops import products
from golfcore.optim.shards import Pending
from golfcore.ranks.device import own_device
from golfcore.ranks.monitor import Monitor
from golfcore.ranks.rendezvous import JOIN_GPU_S, JOIN_S, Place, meet
from golfcore.ranks.verdict import Limits

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process's place among the ranks, and the collectives that training needs.

    ``monitor`` watches the ranks; a world of one has none.
    """

    rank: int
    size: int
    device: torch.device
    monitor: Monitor | None = None

    @property
    def primary(self) -> bool:
        """True on rank 0, which prints and writes."""
        return self.rank == 0

    # --- signs of life ------------------------------------------------------------------------------------------------

    def heartbeat(self, where: str = "", *, step: bool = False) -> None:
        """Report progress to the monitor, at ``where`` or the place before; raise RankError if the run has to end."""
        if self.monitor is not None:
            self.monitor.heartbeat(where, step=step)

    def expect_progress(self, pause_s: float = 0.0) -> contextlib.AbstractContextManager[None]:
        """End the run if, within this context, a rank makes no progress or is far slower than the others.

        ``pause_s``: seconds that a rank which computes may need between two heartbeats; it gets three times as much.
        """
        return contextlib.nullcontext() if self.monitor is None else self.monitor.expect_progress(pause_s)

    def before_end(self, tell: Callable[[str], None]) -> None:
        """Set a function that gets the reason if the monitor has to end this process."""
        if self.monitor is not None:
            self.monitor.on_end = tell

    def _waiting(self, what: str) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self.monitor is None else self.monitor.waiting(what)

    # --- clocks -------------------------------------------------------------------------------------------------------

    def synchronize(self) -> None:
        """Wait until the device has done what it was given, so that a clock read afterwards counts all of it."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def largest(self, *values: float) -> tuple[float, ...]:
        """Return the largest that any rank gave, for each of ``values``, on every rank: the slowest decides for all."""
        if self.size == 1:
            return values
        with self._waiting("a comparison of clocks"):
            shared = torch.tensor(values, dtype=torch.float64, device=self.device)
            dist.all_reduce(shared, op=dist.ReduceOp.MAX)
            return tuple(shared.tolist())

    # --- collectives --------------------------------------------------------------------------------------------------

    def sum(self, value: Tensor) -> Tensor:
        """Sum ``value`` over the ranks, in place, and return it."""
        if self.size > 1:
            shared = value.to(self.device)  # NCCL serves no CPU tensors
            with self._waiting("a sum over the ranks"):
                dist.all_reduce(shared)
            if shared is not value:
                value.copy_(shared)
        return value

    def all_reduce(self, buffer: Tensor) -> Pending:
        """Begin to sum ``buffer`` over the ranks, in place."""
        return self._pending("the reduction of small gradients", dist.all_reduce(buffer, async_op=True))

    def reduce_scatter(self, own: Tensor, pieces: Tensor) -> Pending:
        """Begin to sum ``pieces`` [ranks, ...] over the ranks; ``own`` gets this rank's piece of the sum."""
        what = "the reduction of a bank's gradients"
        if self.device.type == "cuda":
            return self._pending(what, _reduce_scatter(own, pieces.flatten(0, 1), async_op=True))
        # gloo reduces all pieces on all ranks; exchanged and summed here they cost half.
        received = torch.empty_like(pieces)
        work = dist.all_to_all_single(received, pieces, async_op=True)
        return self._pending(what, work, lambda: torch.sum(received, 0, out=own))

    def all_gather(self, all_: Tensor, own: Tensor) -> Pending:
        """Begin to gather ``own`` of each rank into ``all_`` [ranks, ...]."""
        return self._pending("the gathering of a bank's updates", _all_gather(all_.flatten(0, 1), own, async_op=True))

    def _pending(self, what: str, work: Any, after: Callable[[], object] | None = None) -> Pending:
        def wait() -> None:
            with self._waiting(what):
                work.wait()
            if after is not None:
                after()

        return wait

    def from_primary(self, *values: float) -> tuple[float, ...]:
        """Return rank 0's ``values`` on every rank, so that a decision that reads a clock is the same on all."""
        if self.size == 1:
            return values
        with self._waiting("the word of rank 0"):
            shared = torch.tensor(values, dtype=torch.float64)  # by gloo: a GPU would have to finish its work first
            dist.broadcast(shared, src=0)
            return tuple(shared.tolist())

    def on_primary(self, function: Callable[[], T]) -> T:
        """Call ``function`` on rank 0; return its picklable result, or raise its GolfError, on every rank."""
        if self.size == 1:
            return function()
        outcome: tuple[str, Any] = ("", None)
        if self.primary:
            try:
                outcome = ("value", function())
            except GolfError as error:
                outcome = ("error", error)
        kind, value = self._broadcast_object(outcome)
        if kind == "error":
            value.everywhere = True
            raise value
        result: T = value
        return result

    def _broadcast_object(self, value: Any) -> Any:
        with self._waiting("the word of rank 0"):
            data = torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8)
            size = torch.tensor([data.numel()])
            dist.broadcast(size, src=0)
            if not self.primary:
                data = torch.empty(int(size), dtype=torch.uint8)
            dist.broadcast(data, src=0)
        # What comes over the run's own process group is rank 0's, as the code that runs here is.
        return value if self.primary else pickle.loads(data.numpy().tobytes())

    def gather(self, value: T) -> list[T]:
        """Return the picklable ``value`` of every rank, in their order, on every rank."""
        if self.size == 1:
            return [value]
        theirs: list[Any] = [None] * self.size
        with self._waiting("the comparison of the ranks"):
            dist.all_gather_object(theirs, value)
        return theirs

    def require_alike(self, facts: Mapping[str, object]) -> None:
        """Compare ``facts`` with those of rank 0.

        Raises:
            RankError: a rank differs; raised on every rank, with the first fact that differs and both values.
        """
        if self.size == 1:
            return
        theirs = self.gather({name: str(value) for name, value in facts.items()})
        for rank, other in enumerate(theirs):
            for name in [*theirs[0], *other]:
                if other.get(name) != theirs[0].get(name):
                    raise RankError(
                        f"rank {rank} differs from rank 0: {name} is {other.get(name, 'absent')} there and "
                        f"{theirs[0].get(name, 'absent')} on rank 0; start all ranks with the same recipe, data and "
                        "code"
                    )

    def barrier(self) -> None:
        if self.size > 1:
            with self._waiting("a barrier"):
                dist.barrier()


def _reduce_scatter(own: Tensor, pieces: Tensor, *, async_op: bool) -> Any:
    function = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
    return function(own, pieces, async_op=async_op)


def _all_gather(all_: Tensor, own: Tensor, *, async_op: bool) -> Any:
    function = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    return function(all_, own, async_op=async_op)


@contextmanager
def join_world(
    *,
    environment: Mapping[str, str] = os.environ,
    limits: Limits | None = None,
    gpus: int | None = None,
    clock: Callable[[], float] = time.time,
    join_s: float | None = None,
) -> Iterator[World]:
    """Join the world that torchrun's environment describes, and leave it at the end of the context.

    Args:
        environment: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT; a world of one without them.
        limits: limits beyond which a rank counts as lost.
        gpus: number of GPUs of this machine; default: all that torch sees.
        clock: the wall clock.
        join_s: seconds to wait for the other ranks; default: ``JOIN_S``, with GPUs ``JOIN_GPU_S``.

    Raises:
        RankError: the rendezvous or a rank cannot be reached, or a rank cannot take part; on every rank.
        UsageError: the environment describes no rank, or torch cannot use the GPUs of this machine.
    """
    place = Place.from_environment(environment)
    gpus = torch.cuda.device_count() if gpus is None else gpus
    device, trouble = own_device(place, gpus, environment)
    if device.type == "cuda":
        products.sum_in_fp32()
    if place.size == 1:
        if trouble:
            raise UsageError(trouble)
        yield World(rank=0, size=1, device=device)
        return
    if join_s is None:
        join_s = JOIN_GPU_S if gpus else JOIN_S
    monitor = meet(place, device, trouble, limits or Limits(), clock, join_s)
    reason = ""
    try:
        yield World(place.rank, place.size, device, monitor)
    except BaseException as error:
        reason = str(error) or type(error).__name__
        raise
    finally:
        monitor.close(reason)
        if not reason:
            dist.destroy_process_group()  # after a failure it would wait for the lost rank
