"""Checks in order: the first failure ends them, a rank that fails is named, and none waits for one that is gone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from many_ranks import Ranks, run_ranks

from golfcore.boxcheck.findings import Check, Failed, Finding, Found, NotHere, run_checks
from golfcore.errors import InputError
from golfcore.ranks.world import World

ALONE = World(rank=0, size=1, device=torch.device("cpu"))


def passes() -> Found:
    return Found("fine", {"x": 1.0})


def fails() -> Found:
    raise Failed("broken", "mend it")


def wrong_input() -> Found:
    raise InputError("two\nlines")


def absent() -> Found:
    raise NotHere("no GPU")


def half() -> Found:
    return Found("fine", missing="the rest")


def states(*probes: Callable[[], Found], go_on: bool = False) -> list[tuple[str, str]]:
    checks = [Check(f"{number}", probe, "see above") for number, probe in enumerate(probes)]
    told: list[Finding] = []
    found = run_checks(ALONE, checks, go_on=go_on, tell=told.append)
    assert told == found
    assert all(one.remedy == "" for one in found if one.state != "failed")
    return [(one.state, one.detail) for one in found]


def test_each_end_of_a_check_has_its_state() -> None:
    assert states(passes, absent, half) == [
        ("ok", "fine"), ("not checked", "no GPU"), ("in part", "fine; not checked: the rest"),
    ]  # fmt: skip


@pytest.mark.parametrize("go_on", [False, True])
def test_the_first_failure_ends_the_checks(go_on: bool) -> None:
    left_out = ("not reached", "left out after 1 failed")
    after = [("ok", "fine"), ("failed", "broken")] if go_on else [left_out, left_out]
    assert states(passes, wrong_input, passes, fails, go_on=go_on) == [
        ("ok", "fine"),
        ("failed", r"two\nlines"),
        *after,
    ]


def test_a_failure_says_what_to_do() -> None:
    checks = [Check("own", fails, "see above"), Check("other", wrong_input, "see above")]
    assert [one.remedy for one in run_checks(ALONE, checks, go_on=True)] == ["mend it", "see above"]


def compared(found: Sequence[Found]) -> None:
    values = [one.values["x"] for one in found]
    if min(values) < 0.9 * max(values):
        raise Failed(f"rank {values.index(min(values))} is slow", "another machine")


def two_ranks(world: World) -> list[Finding]:
    def odd() -> Found:
        return fails() if world.rank == 1 else passes()

    def uneven() -> Found:
        return Found("counted", {"x": 1.0 - 0.3 * world.rank})

    def all_at_once() -> Found:
        world.barrier()
        return fails()

    checks = (
        Check("odd", odd), Check("alike", fails), Check("uneven", uneven, compare=compared),
        Check("one is absent", lambda: absent() if world.rank else uneven(), compare=compared),
        Check("together", all_at_once, together=True),
    )  # fmt: skip
    return run_checks(world, checks, go_on=True)


def test_ranks_have_one_finding_which_names_the_rank() -> None:
    first, second = run_ranks(2, two_ranks)
    assert first == second
    assert [(one.state, one.detail) for one in first] == [
        ("failed", "rank 1 of 2: broken"), ("failed", "broken"), ("failed", "rank 1 is slow"), ("ok", "counted"),
        ("failed", "broken"),
    ]  # fmt: skip
    assert first[2].remedy == "another machine"


def lost(world: World) -> None:
    def one_breaks() -> Found:
        if world.rank == 1:
            raise InputError("out of memory")
        world.barrier()
        return passes()

    run_checks(world, [Check("together", one_breaks, together=True)])


def test_a_rank_that_breaks_inside_a_common_check_ends_all() -> None:
    with Ranks(2, lost) as ranks:
        outcomes = ranks.outcomes(60)
    assert all("out of memory" in f"{outcome.error}{outcome.stderr}" for outcome in outcomes.values()), outcomes
