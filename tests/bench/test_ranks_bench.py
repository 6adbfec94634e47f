"""The cases ``ranks`` and ``checkpoint``: both sides do the same step, and a checkpoint is there."""

from __future__ import annotations

import pytest
from tiny import recipe

from golfcore.bench.ranks import checkpoint, ranks
from golfcore.bench.workloads import select
from golfcore.errors import UsageError


def test_two_ranks_do_the_step_of_one() -> None:
    workload = ranks(recipe(batch_tokens=512))
    workload.check()
    assert list(workload.contenders) == ["golfcore", "2 ranks, 1 thread each"]
    losses = [float(work(0)) for work in workload.contenders.values()]  # type: ignore[arg-type]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)


def test_a_checkpoint_is_written_meanwhile() -> None:
    workload = checkpoint(recipe())
    workload.check()
    for work in workload.contenders.values():
        work(0)


def test_cases_of_a_whole_step_are_known_by_name() -> None:
    with pytest.raises(UsageError, match="known: train_step, ranks, checkpoint, "):
        next(select("rank", ()))
