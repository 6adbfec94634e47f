"""Send heartbeats from within long work to the monitor that watches the ranks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from golfcore.progress import Tick
from golfcore.ranks.world import World


def with_heartbeat(world: World, tick: Tick, stage: str, *, step: bool = False) -> Tick:
    """Wrap ``tick`` so that each call is also a heartbeat of this rank.

    With ``step`` each call stands for an equal piece of work, so the ranks are also compared for speed.
    """

    def beat(done: float, total: float, note: str) -> None:
        world.heartbeat(f"{stage}, {done:,.0f} of {total:,.0f}: {note}", step=step)
        tick(done, total, note)

    return beat


@contextmanager
def heartbeat_of_layers(module: nn.Module, world: World) -> Iterator[None]:
    """Send a heartbeat at every layer of a forward pass: a batch of a large model may take long on a processor."""
    handles = [m.register_forward_hook(lambda *_: world.heartbeat()) for m in module.modules() if world.size > 1]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
