"""What ranks with GPUs do otherwise, shown without one; and the comparison of clocks."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from many_ranks import run_ranks

from golfcore.errors import RankError
from golfcore.pipeline import whole
from golfcore.pipeline.start import Start
from golfcore.progress import no_progress
from golfcore.ranks import world as world_module
from golfcore.ranks.world import World, join_world
from golfcore.training.runlog import RunLog

TWO = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
GPU = World(rank=0, size=1, device=torch.device("cuda", 0))


@pytest.mark.parametrize(("gpus", "join_s", "expected"), [(0, None, 25.0), (8, None, 120.0), (8, 7.0, 7.0)])
def test_ranks_with_gpus_wait_longer_for_each_other(
    gpus: int, join_s: float | None, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def meet(*arguments: Any) -> None:
        seen.extend(arguments)
        raise RankError("met")

    monkeypatch.setattr(world_module, "meet", meet)
    with pytest.raises(RankError, match="met"), join_world(environment=TWO, gpus=gpus, join_s=join_s):
        pass
    assert seen[-1] == expected


def test_a_rank_on_a_gpu_sums_split_products_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    switches = torch.backends.cuda.matmul
    names = ("allow_bf16_reduced_precision_reduction", "allow_fp16_reduced_precision_reduction")
    before = {name: getattr(switches, name) for name in names}
    monkeypatch.setattr(world_module, "own_device", lambda *_: (torch.device("cuda", 0), ""))
    try:
        for name in names:
            setattr(switches, name, True)
        with join_world(environment={}, gpus=1) as world:
            assert world.device == torch.device("cuda", 0)
            assert not any(getattr(switches, name) for name in names)
    finally:
        for name, value in before.items():
            setattr(switches, name, value)


def test_a_clock_waits_for_the_ranks_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    GPU.synchronize()
    World(rank=0, size=1, device=torch.device("cpu")).synchronize()
    assert waited == [GPU.device]


def compared(world: World) -> tuple[float, ...]:
    return world.largest(float(world.rank), -float(world.rank), float("-inf"))


def test_the_largest_of_each_value_reaches_every_rank() -> None:
    assert World(rank=0, size=1, device=torch.device("cpu")).largest(1.0, -2.0) == (1.0, -2.0)
    assert run_ranks(3, compared) == [(2.0, 0.0, float("-inf"))] * 3


def test_a_run_gives_its_gpu_memory_back_before_it_is_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trainer's tensors lie in a cycle; they are gone when the cache is emptied."""
    left: list[bool] = []

    class Module(torch.nn.Linear):
        pass

    def trained(*_: Any) -> tuple[Module, None]:
        module = Module(2, 2)
        module.hooks = [lambda: module]  # type: ignore[assignment]
        kept.append(weakref.ref(module))
        return module, None

    kept: list[weakref.ref[Module]] = []
    monkeypatch.setattr(whole, "trained_and_calibrated", trained)
    monkeypatch.setattr(whole, "_packed", lambda *_: {"bytes": 1})
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: left.append(kept[0]() is not None))
    gc.disable()
    try:
        with RunLog(tmp_path, primary=True) as log:
            start = Start(tmp_path, None)  # type: ignore[arg-type]
            assert whole._made(start, None, None, GPU, log, no_progress) == {"bytes": 1}  # type: ignore[arg-type]
    finally:
        gc.enable()
    assert left == [False]
