"""The loop: exact resume, restored warm-up, averages, the clock, a diverging run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import TINY, VOCAB, recipe

from golfcore.config import OptimConfig, RecipeConfig, TrackConfig
from golfcore.data.loader import TokenLoader
from golfcore.data.shards import ShardSet, ShardWriter
from golfcore.errors import FormatError, InputError
from golfcore.model import get_family
from golfcore.ops import products
from golfcore.ranks.world import World
from golfcore.run_folder import CHECKPOINT, METRICS
from golfcore.training.checkpoint import load_checkpoint
from golfcore.training.precision import choose_precision
from golfcore.training.runlog import RunLog, read_metrics
from golfcore.training.trainer import Trainer

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

    first = trainer(config, shards, tmp_path / "parts", on_progress=interrupt)
    with pytest.raises(KeyboardInterrupt):
        first.run()
    saved = load_checkpoint(tmp_path / "parts" / CHECKPOINT)
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


def test_a_diverging_run_stops_and_names_step_and_tensor(shards: ShardSet, tmp_path: Path) -> None:
    """The checkpoint from before stays, and a run can go on from it."""
    config = recipe(iterations=8, checkpoint_every_s=1e-9)

    def poison(share: float, note: str) -> None:
        assert run.saver.writer is not None
        run.saver.writer.wait()  # on a busy machine too every step is saved
        if note == "step 5":  # after it was logged, before it was saved
            with torch.no_grad():
                run.module.get_parameter("blocks.1.mlp.up.weight")[3, 1] = float("inf")

    run = trainer(config, shards, tmp_path, on_progress=poison)
    with pytest.raises(
        InputError, match=r"after step 5 parameter blocks\.1\.mlp\.up\.weight is not finite; the last good"
    ):
        run.run()
    saved = load_checkpoint(tmp_path / CHECKPOINT)
    assert saved["step"] == 4
    again = trainer(config, shards, tmp_path, resume_step=4)
    again.resume(saved)
    assert again.run().step == 8


def test_a_loss_that_is_nan_stops_before_it_reaches_the_weights(shards: ShardSet, tmp_path: Path) -> None:
    run = trainer(recipe(log_every=10**6), shards, tmp_path)
    loss = run.module.loss
    before = [p.detach().clone() for p in run.parameters]

    def poisoned(batch: Any, context: Any) -> Any:
        value, parts = loss(batch, context)
        if run.state.step == 2:
            before[:] = [p.detach().clone() for p in run.parameters]
            value, parts = value * float("nan"), {"ce": parts["ce"] * float("nan")}
        return value, parts

    run.loss_fn = poisoned
    with pytest.raises(InputError, match=r"the loss is nan at step 3: gradient of skip_weight_SD is not finite; lower"):
        run.run()
    assert all(torch.equal(a, b) for a, b in zip(run.parameters, before, strict=True))


def test_a_clock_shorter_than_a_step_is_an_error(shards: ShardSet, tmp_path: Path) -> None:
    config = dataclasses.replace(recipe(warmup_steps=2), track=TrackConfig(train_s=1e-5))
    with pytest.raises(InputError, match=r"track\.train_s = 1e-05 leaves 9\.17e-06 s for steps, and one took"):
        trainer(config, shards, tmp_path).warm_up()


def test_a_warm_up_of_the_momentum_that_outlasts_the_clock_is_noted(shards: ShardSet, tmp_path: Path) -> None:
    config = dataclasses.replace(recipe(), optim=OptimConfig(muon_momentum_warmup_steps=10**6))
    config = dataclasses.replace(config, track=TrackConfig(train_s=5.0))
    trainer(config, shards, tmp_path).warm_up()
    assert "muon_momentum_warmup_steps = 1000000, but the clock allows" in (tmp_path / "log.txt").read_text()


def test_stages_change_batches_rows_and_the_models_graph(shards: ShardSet, tmp_path: Path) -> None:
    model = dataclasses.replace(TINY, loop_layers="1", loop_starts=(0.5, 0.75))
    config = recipe(
        iterations=8, seq_ramp=(16,), seq_ramp_until=(0.25,), batch_ramp=(128,), batch_ramp_until=(0.5,),
        checkpoint_every_s=1e-9,
    )  # fmt: skip
    config = dataclasses.replace(config, model=model)
    seen: list[tuple[int, ...]] = []

    def build(run_dir: Path, **more: Any) -> Trainer:
        loader = TokenLoader(shards, batch_tokens=256, seq_len=32, order="shuffled", seed=1)
        module = get_family("gpt").build(model, VOCAB, 1)
        loss = module.loss

        def watched(batch: Any, context: Any) -> Any:
            seen.append((*batch.inputs_BT.shape, module.phase))
            return loss(batch, context)

        module.loss = watched  # type: ignore[method-assign]
        return Trainer(config, module, loader, WORLD, RunLog(run_dir, primary=True, **more))

    run = build(tmp_path / "a")
    run.warm_up()
    assert set(seen) == {(8, 16, 0), (4, 32, 0), (4, 32, 1), (4, 32, 2)}  # every graph before the clock starts
    seen.clear()
    run.run()
    assert seen[:4] == [(8, 16, 0)] * 2 + [(4, 32, 0)] * 2
    assert seen[4:] == [(4, 32, 1)] * 4 + [(4, 32, 2)] * 4  # 256 tokens in micro-batches of 128
    assert run.state.tokens == 4 * 128 + 4 * 256
    assert run.module.phase == 2


def test_the_mean_of_late_weights_is_kept(shards: ShardSet, tmp_path: Path) -> None:
    run = trainer(recipe(iterations=8, swa_start=0.5, swa_every=2, warmdown_iters=0), shards, tmp_path)
    late: list[list[torch.Tensor]] = []
    update = run.update

    def watched(multiplier: float, share: float) -> None:
        update(multiplier, share)
        if share >= 0.5 and (run.state.step + 1) % 2 == 0:
            late.append([p.detach().clone() for p in run.parameters])

    run.update = watched  # type: ignore[method-assign]
    run.run()
    assert len(late) == run.state.averaged == 2
    for i, p in enumerate(run.parameters):
        torch.testing.assert_close(p.detach(), (late[0][i] + late[1][i]) / 2)


def test_an_average_that_never_began_leaves_the_weights(shards: ShardSet, tmp_path: Path) -> None:
    run = trainer(recipe(iterations=4, swa_start=0.9, swa_every=50), shards, tmp_path)
    run.run()
    assert run.state.averaged == 0
    assert any(not torch.equal(run.optimizers.averages[n], p) for n, p in run.optimizers.parameters.items())


def test_an_ended_run_is_not_resumed(shards: ShardSet, tmp_path: Path) -> None:
    run = trainer(recipe(iterations=2), shards, tmp_path)
    run.run()
    run.save(final=True)
    with pytest.raises(InputError, match="has ended after 2 steps"):
        trainer(recipe(), shards, tmp_path).resume(load_checkpoint(tmp_path / CHECKPOINT))


def test_checkpoints_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no checkpoint"):
        load_checkpoint(tmp_path / CHECKPOINT)
    (tmp_path / CHECKPOINT).write_bytes(b"not a checkpoint")
    with pytest.raises(FormatError, match="not a readable checkpoint"):
        load_checkpoint(tmp_path / CHECKPOINT)
    torch.save({"version": 99}, tmp_path / CHECKPOINT)
    with pytest.raises(FormatError, match="version 99"):
        load_checkpoint(tmp_path / CHECKPOINT)


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
    assert dtype is products.fast_dtype() and str(products.speeds()) in why
    for wish, expected in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        with products.using(products.Route(wish)):
            assert choose_precision("auto", WORLD.device)[0] is expected
