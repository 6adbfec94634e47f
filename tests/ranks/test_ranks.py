"""Several ranks are one: losses, weights, clipping, averages, resuming on another number of them, one clock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from many_ranks import run_ranks
from ranked_training import ALONE, Run, losses, make_recipe, train, write_tokens

from golfcore.config import RecipeConfig
from golfcore.ops import using
from golfcore.ranks.world import World


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokens(tmp_path_factory.mktemp("tokens"))


def assert_alike(one: dict[str, np.ndarray], other: dict[str, np.ndarray], tolerance: float) -> None:
    """Tensor by tensor; not number by number, since Adam gives a gradient of nearly nothing a step of full length."""
    assert one.keys() == other.keys()
    for name in one:
        assert np.linalg.norm(one[name] - other[name]) <= tolerance * np.linalg.norm(one[name]), name


@pytest.mark.parametrize(
    "optim",
    [{}, {"grad_clip_norm": 0.05, "muon_weight_decay": 0.1, "muon_row_norm": True, "matrix_lr_late": 0.01}],
    ids=["plain", "clipped, decayed, late rates"],
)
# Native Newton-Schulz works in bf16, which turns a last bit of a gradient into 1/256 of a step.
@pytest.mark.parametrize(("ops", "atol"), [("reference", 1e-4), ("native", 5e-2)])
def test_ranks_train_as_one_does(tokens: Path, tmp_path: Path, optim: dict[str, Any], ops: str, atol: float) -> None:
    config = make_recipe(optim=optim, iterations=6, micro_batch_tokens=64, ema_decay=0.5)
    alone = train(ALONE, config, tokens, tmp_path / "1", ops)
    for size in (2, 4):
        each = run_ranks(size, train, config, tokens, tmp_path / str(size), ops)
        for other in each[1:]:
            assert all(np.array_equal(each[0][name], other[name]) for name in other)  # bit by bit: nobody drifts
        assert_alike(alone, each[0], atol)
        found, expected = losses(tmp_path / str(size)), losses(tmp_path / "1")
        np.testing.assert_allclose(list(found.values()), list(expected.values()), atol=atol)


def reductions(world: World, config: RecipeConfig, tokens: Path, run_dir: Path) -> tuple[int, int, dict[str, Any]]:
    """Rounds begun while backward still ran, all rounds, and the summed gradients, of one step of two micro-batches."""
    trainer = Run(world, config, tokens, run_dir).trainer
    shards = trainer.optimizers._shards
    assert shards is not None
    begun: list[int] = []
    finish = shards.finish

    def watch(loss: torch.Tensor) -> torch.Tensor:
        begun.append(shards._begun)
        return finish(loss)

    shards.finish = watch  # type: ignore[method-assign]
    trainer.backward()
    own = {
        name: gradient.numpy().copy()
        for bank in shards.banks
        for name, gradient in zip(bank.owned[world.rank], shards.await_bank(bank), strict=True)
    }
    rest = {name: trainer.optimizers.parameters[name].grad.numpy().copy() for name in shards._rest}  # type: ignore[union-attr]
    trainer.loader.close()  # type: ignore[attr-defined]
    return begun[0], len(shards._rounds), own | rest


def test_gradients_are_reduced_during_the_last_backward(tokens: Path, tmp_path: Path) -> None:
    config = make_recipe(micro_batch_tokens=64)
    alone = Run(ALONE, config, tokens, tmp_path / "1").trainer
    alone.backward()
    alone.loader.close()  # type: ignore[attr-defined]
    expected = {name: p.grad for name, p in alone.optimizers.parameters.items()}
    found: dict[str, Any] = {}
    for begun, rounds, gradients in run_ranks(2, reductions, config, tokens, tmp_path / "2"):
        assert begun == rounds > 3  # nothing was left for the time after
        found |= gradients
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        np.testing.assert_allclose(gradient, expected[name].numpy(), atol=1e-6, rtol=1e-5, err_msg=name)  # type: ignore[union-attr]


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 4), (4, 2)])
def test_a_run_goes_on_with_another_number_of_ranks(tokens: Path, tmp_path: Path, before: int, after: int) -> None:
    whole = make_recipe(iterations=8, warmdown_iters=0)
    expected = train(ALONE, whole, tokens, tmp_path / "whole", "reference")
    half = make_recipe(iterations=4, warmdown_iters=0)

    def go(size: int, function: Any, config: RecipeConfig) -> Any:
        arguments = (config, tokens, tmp_path / "parts", "reference")
        return function(ALONE, *arguments) if size == 1 else run_ranks(size, function, *arguments)[0]

    go(before, train_without_end, half)
    found = go(after, train, whole)
    assert_alike(expected, found, 1e-2)  # without the momenta it is 0.4
    assert list(losses(tmp_path / "parts")) == list(range(1, 9))
    np.testing.assert_allclose(
        list(losses(tmp_path / "parts").values()), list(losses(tmp_path / "whole").values()), atol=1e-3
    )


def train_without_end(world: World, config: RecipeConfig, tokens: Path, run_dir: Path, ops: str) -> None:
    run = Run(world, config, tokens, run_dir)
    with using(ops), run.loader, run.log:
        run.trainer.run()
        run.trainer.save()
        if run.trainer.saver.writer is not None:
            run.trainer.saver.writer.wait()


def steps_by_the_clock(world: World, config: RecipeConfig, tokens: Path, run_dir: Path) -> tuple[int, float]:
    run = Run(world, config, tokens, run_dir)
    with run.loader, run.log:
        run.trainer.warm_up()
        state = run.trainer.run()
    return state.step, state.train_s


def test_all_ranks_leave_the_clock_loop_at_the_same_step(tokens: Path, tmp_path: Path) -> None:
    config = make_recipe(track_s=1.0, iterations=10**6, log_every=10**6)
    ends = run_ranks(2, steps_by_the_clock, config, tokens, tmp_path)
    assert ends[0][0] == ends[1][0] > 0
    assert all(train_s <= 1.2 for _, train_s in ends)
    assert "stopping_early: wallclock_cap" in (tmp_path / "log.txt").read_text()


def warmed(world: World, config: RecipeConfig, tokens: Path, run_dir: Path) -> bool:
    """Whether the warm-up left every state as it was, momenta of other ranks included."""
    run = Run(world, config, tokens, run_dir)
    with run.loader, run.log:
        before = {k: v.clone() for k, v in run.trainer.optimizers._state.items()}
        position = run.loader.state_dict()
        run.trainer.warm_up()
        after = run.trainer.optimizers._state
        return run.loader.state_dict() == position and all(torch.equal(before[k], after[k]) for k in before)


def test_the_warm_up_leaves_no_trace_on_any_rank(tokens: Path, tmp_path: Path) -> None:
    assert run_ranks(2, warmed, make_recipe(warmup_steps=2), tokens, tmp_path) == [True, True]
