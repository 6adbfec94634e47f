"""The loop: exact resume, restored warm-up, averages, the clock, a diverging run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import TINY, VOCAB, recipe

from golfcore.config import RecipeConfig, TrackConfig
from golfcore.data.loader import TokenLoader
from golfcore.data.shards import ShardSet, ShardWriter
from golfcore.errors import FormatError, InputError
from golfcore.model import get_family
from golfcore.train.checkpoint import NAME, load_checkpoint
from golfcore.train.loop import Trainer, choose_precision
from golfcore.train.runlog import METRICS, RunLog, read_metrics
from golfcore.train.world import World

WORLD = World(rank=0, size=1, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    folder = tmp_path_factory.mktemp("shards")
    # Predictable from the token before, so that a few steps lower the loss.
    noise = np.random.default_rng(0).integers(0, 3, 6000)
    with ShardWriter(folder, "train") as writer:
        writer.append(((np.cumsum(noise) * 7) % VOCAB).astype(np.uint16))
    return ShardSet.of_split(folder, "train")


def trainer(
    config: RecipeConfig, shards: ShardSet, run_dir: Path, resume_step: int | None = None, **more: Any
) -> Trainer:
    train = config.train
    loader = TokenLoader(shards, batch_tokens=train.batch_tokens, seq_len=train.seq_len, order="shuffled", seed=1)
    module = get_family("gpt").build(TINY, VOCAB, train.seed)
    return Trainer(config, module, loader, WORLD, RunLog(run_dir, primary=True, resume_step=resume_step), **more)


def losses(run_dir: Path) -> list[float]:
    return [row["train_loss"] for row in read_metrics(run_dir / METRICS) if row["kind"] == "train"]


def test_a_resumed_run_is_the_uninterrupted_one_to_the_last_bit(shards: ShardSet, tmp_path: Path) -> None:
    config = recipe(iterations=8, ema_decay=0.9, checkpoint_every_s=1e-9)
    whole = trainer(config, shards, tmp_path / "whole")
    whole.warm_up()
    whole.run()

    def interrupt(share: float, note: str) -> None:
        if note == "step 5":  # after it was logged, before it was saved
            raise KeyboardInterrupt

    first = trainer(config, shards, tmp_path / "parts", tick=interrupt)
    with pytest.raises(KeyboardInterrupt):
        first.run()
    saved = load_checkpoint(tmp_path / "parts" / NAME)
    assert 1 <= saved["step"] <= 4  # one that was due while the one before was being written was left out
    second = trainer(config, shards, tmp_path / "parts", resume_step=saved["step"])
    second.resume(saved)
    second.warm_up()
    second.run()
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    for a, b in zip(whole.module.parameters(), second.module.parameters(), strict=True):
        assert torch.equal(a, b)


def test_warm_up_leaves_no_trace(shards: ShardSet, tmp_path: Path) -> None:
    cold = trainer(recipe(warmup_steps=0), shards, tmp_path / "cold")
    warm = trainer(recipe(warmup_steps=3), shards, tmp_path / "warm")
    warm.warm_up()
    assert warm.loader.state_dict() == cold.loader.state_dict()
    for t in (cold, warm):
        t.run()
    assert losses(tmp_path / "cold") == losses(tmp_path / "warm")


def test_micro_batches_add_up_to_the_batch(shards: ShardSet, tmp_path: Path) -> None:
    config = recipe(iterations=3)
    results = []
    for size in (32, 96, 256):
        run = trainer(recipe(iterations=3, micro_batch_tokens=size), shards, tmp_path / str(size))
        run.run()
        results.append(losses(tmp_path / str(size)))
    assert config.train.batch_tokens == 256
    np.testing.assert_allclose(results[0], results[2], atol=1e-4)
    np.testing.assert_allclose(results[1], results[2], atol=1e-4)


def test_training_lowers_the_loss_and_the_average_lags(shards: ShardSet, tmp_path: Path) -> None:
    run = trainer(recipe(iterations=60, ema_decay=0.8, warmdown_iters=0), shards, tmp_path)
    raw: list[torch.Tensor] = []
    use_average = run._use_average

    def keep_raw() -> None:
        raw.extend(p.detach().clone() for p in run.parameters)
        use_average()

    run._use_average = keep_raw  # type: ignore[method-assign]
    run.run()
    found = losses(tmp_path)
    assert found[-1] < 0.8 * found[0]
    assert any(not torch.equal(a, b) for a, b in zip(raw, run.parameters, strict=True))


def test_the_clock_ends_a_run(shards: ShardSet, tmp_path: Path) -> None:
    config = dataclasses.replace(recipe(iterations=10**6, log_every=10**6), track=TrackConfig(train_s=0.5))
    state = trainer(config, shards, tmp_path).run()
    assert 0 < state.step < 10**6
    assert "stopping_early: wallclock_cap" in (tmp_path / "log.txt").read_text()


def test_validation_stands_outside_the_clock(shards: ShardSet, tmp_path: Path) -> None:
    seen = []

    def evaluate(module: torch.nn.Module) -> tuple[float, float]:
        seen.append(run.state.step)
        module.eval()
        return 1.0, 2.0

    run = trainer(recipe(iterations=5, val_every=2), shards, tmp_path, evaluate=evaluate)
    run.run()
    assert seen == [2, 4]
    assert run.module.training
    assert [r["val_bpb"] for r in read_metrics(tmp_path / METRICS) if r["kind"] == "val"] == [2.0, 2.0]


def test_a_diverging_run_stops_with_the_step(shards: ShardSet, tmp_path: Path) -> None:
    run = trainer(recipe(), shards, tmp_path)
    with torch.no_grad():
        run.parameters[0][0, 0] = float("nan")
        run.parameters[0][:, 1] = float("nan")
    with pytest.raises(InputError, match="the loss is nan at step 1"):
        run.run()


def test_an_ended_run_is_not_resumed(shards: ShardSet, tmp_path: Path) -> None:
    run = trainer(recipe(iterations=2), shards, tmp_path)
    run.run()
    run.save(final=True)
    with pytest.raises(InputError, match="has ended after 2 steps"):
        trainer(recipe(), shards, tmp_path).resume(load_checkpoint(tmp_path / NAME))


def test_checkpoints_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no checkpoint"):
        load_checkpoint(tmp_path / NAME)
    (tmp_path / NAME).write_bytes(b"not a checkpoint")
    with pytest.raises(FormatError, match="not a readable checkpoint"):
        load_checkpoint(tmp_path / NAME)
    torch.save({"version": 99}, tmp_path / NAME)
    with pytest.raises(FormatError, match="version 99"):
        load_checkpoint(tmp_path / NAME)


def test_a_batch_that_does_not_split_over_the_ranks(shards: ShardSet, tmp_path: Path) -> None:
    config = recipe()
    module = get_family("gpt").build(TINY, VOCAB, 0)
    loader = TokenLoader(shards, batch_tokens=256, seq_len=32)
    three = World(rank=0, size=3, device=torch.device("cpu"))
    with pytest.raises(InputError, match="does not split over 3 ranks"):
        Trainer(config, module, loader, three, RunLog(tmp_path, primary=True))


def test_precision_is_as_told_or_measured() -> None:
    assert choose_precision("bf16", WORLD.device)[0] is torch.bfloat16
    assert choose_precision("fp32", WORLD.device)[0] is torch.float32
    dtype, why = choose_precision("auto", WORLD.device)
    assert (dtype is torch.bfloat16) == (float(why.split("1/")[1].split()[0]) > 1)
