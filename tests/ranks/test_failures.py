"""A rank that is killed, stopped, hung or slow, or that does not fit the others, ends every rank with its name."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from many_ranks import QUICK, Limits, Ranks, free_port
from ranked_training import ALONE, Run, make_recipe, write_tokens
from tiny import VOCAB

from golfcore.config import DataConfig, RecipeConfig
from golfcore.data.shards import ShardWriter
from golfcore.data.tokens import Tokens
from golfcore.errors import RankError, UsageError
from golfcore.pipeline.train import require_alike
from golfcore.ranks import rendezvous
from golfcore.ranks.rendezvous import Place
from golfcore.ranks.verdict import Member, Pulse, judge
from golfcore.ranks.world import World

SLOW = Limits(silent_s=6.0, hang_s=20.0, slow_s=2.0, slow_factor=4.0, leave_s=1.0)
ENDLESS = {"batch_tokens": 384, "iterations": 10**6, "log_every": 10**6, "warmup_steps": 0}


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokens(tmp_path_factory.mktemp("tokens"))


def go(world: World, config: RecipeConfig, tokens: Path, run_dir: Path, trouble: Callable[[Any], None]) -> None:
    """Trains; from step 5 on rank 1 is in ``trouble`` at each step."""
    run = Run(world, config, tokens, run_dir)
    update = run.trainer.update

    def troubled(*arguments: Any) -> None:
        if world.rank == 1 and run.trainer.state.step >= 5:
            trouble(world)
        update(*arguments)

    run.trainer.update = troubled  # type: ignore[method-assign]
    with run.loader, run.log:
        run.trainer.run()


def killed(world: World) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stopped(world: World) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def hung(world: World) -> None:
    threading.Event().wait()


def slow(world: World) -> None:
    time.sleep(0.3)


def failing(world: World) -> None:
    raise UsageError("the disk of this machine is on fire")


@pytest.mark.parametrize(
    ("trouble", "cause", "limits"),
    [
        (killed, "was killed or crashed", QUICK),
        (stopped, "gives no sign of life", QUICK),
        (hung, "hangs: no progress", QUICK),
        (slow, "is slow", SLOW),
        (failing, "failed: the disk of this machine is on fire", QUICK),
    ],
)
def test_a_lost_rank_ends_every_rank_and_is_named(
    tokens: Path, tmp_path: Path, trouble: Callable[[Any], None], cause: str, limits: Limits
) -> None:
    config = make_recipe(**ENDLESS)
    with Ranks(3, go, config, tokens, tmp_path, trouble, limits=limits) as ranks:
        name = f"rank 1 of 3 (process {ranks.processes[1].pid} on "
        # A stopped one can say nothing itself, and is killed at the end.
        outcomes = ranks.outcomes(30, only=(0, 2) if trouble is stopped else None)
    for rank in (0, 2):
        # Where gloo waits for a rank that keeps its connection, no exception comes through: the process is ended.
        told = outcomes[rank].stderr if trouble in (hung, stopped) else outcomes[rank].error
        assert name in told, outcomes[rank]
        assert cause in told
        assert outcomes[rank].exit_code == (trouble in (hung, stopped))
    assert name in (tmp_path / "log.txt").read_text()


def old_clock() -> float:
    return time.time() - 3600


def wait_for_all(world: World) -> None:
    world.barrier()


@pytest.mark.parametrize(
    ("each", "cause"),
    [
        ([{"gpus": 1}] * 2, "cannot take part: it is number 2"),
        ([{}, {"clock": old_clock}], "its clock is"),
    ],
)
def test_ranks_that_do_not_fit_end_all_with_the_difference(each: list[dict[str, Any]], cause: str) -> None:
    with Ranks(2, wait_for_all, each=each) as ranks:
        outcomes = ranks.outcomes(30)
    for outcome in outcomes.values():
        assert "rank 1 of 2" in outcome.error
        assert cause in outcome.error


def compare(world: World, recipes: list[RecipeConfig], folders: list[Path]) -> None:
    tokens = Tokens(folders[world.rank], VOCAB, None, "")  # type: ignore[arg-type]
    require_alike(recipes[world.rank], tokens, world)


@pytest.fixture(scope="module")
def two_texts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Token folders of one size that differ in a token, in the middle."""
    folders = [tmp_path_factory.mktemp("text") for _ in range(2)]
    for folder in folders:
        for split in ("train", "val"):
            ids = np.zeros(3000, np.uint16)
            ids[1500] = folder == folders[1]
            with ShardWriter(folder, split) as writer:
                writer.append(ids)
    return folders


@pytest.mark.parametrize(
    ("rates", "texts", "difference"),
    [
        ([0.02, 0.02, 0.03], [0, 0, 0], "optim.matrix_lr is 0.03 there and 0.02 on rank 0"),
        ([0.02, 0.02, 0.02], [0, 0, 1], "the data's hash is "),
    ],
    ids=["recipe", "data"],
)
def test_unlike_recipes_and_data_are_named_on_every_rank(
    two_texts: list[Path], rates: list[float], texts: list[int], difference: str
) -> None:
    recipes = [make_recipe(optim={"matrix_lr": rate}) for rate in rates]
    with Ranks(3, compare, recipes, [two_texts[i] for i in texts]) as ranks:
        outcomes = ranks.outcomes(30)
    for outcome in outcomes.values():
        assert f"rank 2 differs from rank 0: {difference}" in outcome.error


def test_ranks_of_one_recipe_and_data_may_have_them_in_other_places(two_texts: list[Path], tmp_path: Path) -> None:
    moved = shutil.copytree(two_texts[0], tmp_path / "moved")
    recipes = [make_recipe(), dataclasses.replace(make_recipe(), data=DataConfig(path=str(moved), vocab_size=260))]
    with Ranks(2, compare, recipes, [two_texts[0], moved]) as ranks:
        outcomes = ranks.outcomes(30)
    assert not any(outcome.error for outcome in outcomes.values()), outcomes


def test_a_rendezvous_that_nobody_serves_is_named_within_the_time() -> None:
    environment = {"MASTER_PORT": str(free_port()), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    with Ranks(2, wait_for_all, environment=environment, each=[{"join_s": 2.0}] * 2) as ranks:
        outcomes = ranks.outcomes(30)
    for outcome in outcomes.values():
        assert f"cannot open the rendezvous at 127.0.0.1:{environment['MASTER_PORT']} within 2 s" in outcome.error
        assert not outcome.stderr  # torch tells a page of addresses


def test_a_port_that_another_program_has_is_no_rendezvous(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "STORE_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as other:
        place = Place(1, 2, 1, "127.0.0.1", other.getsockname()[1], agent_store=True)
        with pytest.raises(RankError, match="another program has that port"):
            rendezvous.meet(place, torch.device("cpu"), 0, QUICK, time.time, 5.0)


def test_a_name_that_means_another_machine_everywhere_is_explained() -> None:
    """As torchrun's where /etc/hosts gives a machine's own name a loopback address."""
    environment = {"WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}
    with Ranks(2, wait_for_all, environment=environment, each=[{"join_s": 1.0}] * 2) as ranks:
        outcomes = ranks.outcomes(30)
    assert "localhost names no machine that all ranks reach" in outcomes[0].error
    assert "--local-addr=" in outcomes[0].error


def test_ranks_that_never_come_are_named() -> None:
    environment = {"WORLD_SIZE": "4"}
    with Ranks(2, wait_for_all, environment=environment, each=[{"join_s": 2.0}] * 2) as ranks:
        outcomes = ranks.outcomes(30)
    assert "rank 2, 3 of 4 did not come to the rendezvous" in outcomes[0].error
    assert outcomes[1].error


def resume(world: World, config: RecipeConfig, tokens: Path, run_dir: Path) -> None:
    Run(world, config, tokens, run_dir, layers=2)


def test_a_checkpoint_of_another_model_is_refused_on_every_rank(tokens: Path, tmp_path: Path) -> None:
    run = Run(ALONE, make_recipe(iterations=2), tokens, tmp_path)
    with run.loader, run.log:
        run.trainer.run()
        run.trainer.save()
        run.trainer.saver.writer.wait()  # type: ignore[union-attr]
    with Ranks(2, resume, make_recipe(), tokens, tmp_path) as ranks:
        outcomes = ranks.outcomes(30)
    for outcome in outcomes.values():
        assert "is of another model: blocks.2.attn.k.weight is (16, 32) there and absent" in outcome.error


@pytest.mark.parametrize(
    "environment", [{"RANK": "2", "WORLD_SIZE": "2"}, {"RANK": "-1"}, {"WORLD_SIZE": "2"}, {"WORLD_SIZE": "two"}]
)
def test_an_environment_that_describes_no_rank(environment: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        Place.from_environment(environment)


# --- the judge --------------------------------------------------------------------------------------------------------


def members(*pulses: Pulse) -> list[Member]:
    return [Member(rank, f"rank {rank}", pulse, heard_at=100.0) for rank, pulse in enumerate(pulses)]


def test_all_waiting_in_one_collective_is_the_network() -> None:
    stuck = Pulse(where="step 9", waiting=True, collectives=5, watched=True, idle_s=30.0)
    assert "the network between them" in judge(members(stuck, stuck), 100.0, Limits())
    behind = Pulse(where="step 8", waiting=True, collectives=4, watched=True, idle_s=30.0)
    assert judge(members(stuck, behind), 100.0, Limits()).startswith("rank 1 is at another collective")


def test_long_steps_and_unwatched_phases_are_no_hang() -> None:
    waits = Pulse(waiting=True, watched=True, idle_s=60.0)
    works = Pulse(watched=True, idle_s=60.0, longest_s=25.0)
    assert judge(members(waits, works), 100.0, Limits()) == ""
    assert judge(members(Pulse(waiting=True, idle_s=999.0), Pulse(idle_s=999.0)), 100.0, Limits()) == ""
    assert judge(members(waits, Pulse(watched=True, idle_s=60.0)), 100.0, Limits()).startswith("rank 1 hangs")


def test_a_rank_that_does_not_compute_hangs_however_long_its_pauses_may_be() -> None:
    waits = Pulse(waiting=True, watched=True, idle_s=60.0, still_s=60.0)
    still = Pulse(watched=True, idle_s=60.0, still_s=21.0, longest_s=200.0, where="packing")
    assert "rank 1 hangs: no progress for 60 s and no work for 21 s" in judge(members(waits, still), 100.0, Limits())
    still.still_s = 19.0
    assert judge(members(waits, still), 100.0, Limits()) == ""


def test_equal_ranks_are_not_slow_however_uneven_a_moment_is() -> None:
    limits, everyone = Limits(), members(Pulse(watched=True), Pulse(watched=True))
    for second in range(60):
        for member in everyone:
            member.heard_at = float(second)
            member.pulse.steps += 4
            member.pulse.work_s += 0.2 if (second // 3 + member.rank) % 2 else 0.8
        assert judge(everyone, float(second), limits) == ""
