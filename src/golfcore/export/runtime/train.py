"""Train a recipe: the loop of ``golfcore.training.trainer`` without its checkpoints and monitors."""

from __future__ import annotations

import math
import time
from typing import Any

import torch

from golfcore.data.loader import TokenLoader
from golfcore.data.shards import ShardSet
from golfcore.export.runtime.ranks import World
from golfcore.model.interface import Context, LanguageModel
from golfcore.optim.optimizers import Optimizers
from golfcore.optim.schedule import average_decay, lr_multiplier, progress, stage_at, stages, weight_decay_multiplier
from golfcore.quant.qat import aware_loss
from golfcore.training.feed import batches_of

LONGER = 1.25  # a step may take that many times as long as the one before


def train(model: LanguageModel, recipe: Any, shards: ShardSet, world: World, budget_s: float) -> float:
    """Train ``model`` by ``recipe``; return the seconds on the clock. ``budget_s`` 0 means no clock."""
    work = _Work(model, recipe, shards, world)
    model.train()
    for stage in stages(recipe.train, model.phase_starts()):  # compiles and allocates, and changes nothing
        work.set_stage(stage)
        for loss_fn in work.losses * min(2, recipe.train.warmup_steps):
            work.backward(loss_fn, work.loader.peek())
            work.optimizers.zero_grad()
    work.set_stage(stage_at(0.0, recipe.train, model.phase_starts()))
    world.synchronize()
    began = time.perf_counter()
    averaged = _steps(work, recipe, began, budget_s)
    world.synchronize()
    work.loader.close()
    model.phase = len(model.phase_starts())
    if averaged:
        with torch.no_grad():
            for name, average in work.optimizers.averages.items():
                work.optimizers.parameters[name].copy_(average)
    return time.perf_counter() - began


def _steps(work: _Work, recipe: Any, began: float, budget_s: float) -> int:
    """Run steps until the clock or their number runs out; return how many joined the average of the weights."""
    config, world, model = recipe.train, work.world, work.model
    step = averaged = 0
    elapsed = step_s = 0.0
    while step < config.iterations:
        before, elapsed = elapsed, world.largest(time.perf_counter() - began)[0]
        step_s = max(0.9 * step_s, elapsed - before)
        if step and 0 < budget_s < elapsed + LONGER * step_s:
            place = f"train_time:{1000 * elapsed:.0f}ms step:{step}/{config.iterations}"
            world.print(f"stopping_early: wallclock_cap {place}")
            break
        multiplier = lr_multiplier(step, elapsed, config, budget_s)
        done = progress(step, elapsed, config, budget_s)
        work.share.fill_(done)
        work.set_stage(stage_at(done, config, model.phase_starts()))
        loss = work.backward(work.losses[-1 if done >= recipe.quant.qat_from else 0], next(work.loader))
        if recipe.optim.grad_clip_norm > 0:
            work.optimizers.clip(recipe.optim.grad_clip_norm)
        decay = average_decay(step + 1, done, averaged, config)
        work.optimizers.step(multiplier, step, decay, weight_decay_multiplier(done, recipe.optim))
        averaged += decay < 1
        work.optimizers.zero_grad()
        step += 1
        if step % config.log_every == 0 or step <= 10:
            nats, spent = float(loss), 1000 * (time.perf_counter() - began)
            if not math.isfinite(nats):
                raise RuntimeError(f"the loss is {nats} at step {step}")
            world.print(
                f"step:{step}/{config.iterations} train_loss:{nats:.4f} train_time:{spent:.0f}ms "
                f"step_avg:{spent / step:.2f}ms"
            )
    return averaged


class _Work:
    """The model with its batches, losses and optimizers."""

    def __init__(self, model: LanguageModel, recipe: Any, shards: ShardSet, world: World) -> None:
        config = recipe.train
        self.model, self.world, self.micro_tokens = model, world, config.micro_batch_tokens
        self.loader = TokenLoader(
            shards, batch_tokens=config.batch_tokens, seq_len=config.seq_len, rank=world.rank, world=world.size,
            seed=config.seed, order=config.order,
        )  # fmt: skip
        self.optimizers = Optimizers(
            model, model.parameter_roles(), recipe.optim, tied=recipe.model.tie_embeddings,
            averaged=config.ema_decay > 0 or config.swa_start > 0,
        )  # fmt: skip
        self.losses: list[Any] = [model.loss]
        if recipe.quant.qat != "off":
            self.losses.append(aware_loss(model, model.parameter_roles(), recipe.quant))
        if config.compile and world.device.type == "cuda":
            self.losses = [torch.compile(loss, dynamic=False) for loss in self.losses]
        self.share = torch.zeros((), device=world.device)

    def set_stage(self, stage: Any) -> None:
        """Set the shape of batches and the phase of the model; nothing happens if they are those already."""
        self.loader.reshape(stage.batch_tokens, stage.seq_len, self.model.documents())
        self.model.phase = stage.phase

    def backward(self, loss_fn: Any, host: Any) -> torch.Tensor:
        """Compute the gradients of one batch's mean loss over all ranks; return the mean loss."""
        rows = max(1, min(self.micro_tokens, host.inputs_BT.size) // host.inputs_BT.shape[1])
        total = torch.zeros((), device=self.world.device)
        for batch in batches_of(host, rows, self.world.device):
            part = batch.inputs_BT.size(0) / (len(host.inputs_BT) * self.world.size)
            loss, parts = loss_fn(batch, Context(self.share))
            (loss * part).backward()
            total += parts["ce"].float() * part
        self.world.sum(total)
        for gradient in [p.grad for p in self.model.parameters() if p.grad is not None]:
            self.world.sum(gradient)
        return total
