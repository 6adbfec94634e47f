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
    config = recipe.train
    loader = TokenLoader(
        shards, batch_tokens=config.batch_tokens, seq_len=config.seq_len, rank=world.rank, world=world.size,
        seed=config.seed, order=config.order,
    )  # fmt: skip
    optimizers = Optimizers(
        model, model.parameter_roles(), recipe.optim, tied=recipe.model.tie_embeddings,
        averaged=config.ema_decay > 0 or config.swa_start > 0,
    )  # fmt: skip
    losses: list[Any] = [model.loss]
    if recipe.quant.qat != "off":
        losses.append(aware_loss(model, model.parameter_roles(), recipe.quant))
    if config.compile and world.device.type == "cuda":
        losses = [torch.compile(loss, dynamic=False) for loss in losses]
    share = torch.zeros((), device=world.device)

    def set_stage(stage: Any) -> None:
        loader.reshape(stage.batch_tokens, stage.seq_len, model.documents())
        model.phase = stage.phase

    def backward(loss_fn: Any, host: Any) -> torch.Tensor:
        length = host.inputs_BT.shape[1]
        batches = batches_of(host, max(1, min(config.micro_batch_tokens, host.inputs_BT.size) // length), world.device)
        total = torch.zeros((), device=world.device)
        for batch in batches:
            part = batch.inputs_BT.size(0) / len(host.inputs_BT)
            loss, parts = loss_fn(batch, Context(share))
            (loss * (part / world.size)).backward()
            total += parts["ce"].float() * part
        if world.size > 1:
            for gradient in [p.grad for p in optimizers.parameters.values() if p.grad is not None]:
                world.sum(gradient)
            world.sum(total.div_(world.size))
        return total

    model.train()
    for stage in stages(config, model.phase_starts()):  # compiles and allocates, and changes nothing
        set_stage(stage)
        for loss_fn in losses * min(2, config.warmup_steps):
            backward(loss_fn, loader.peek())
            optimizers.clip(1.0)
            optimizers.zero_grad()
    stage = stage_at(0.0, config, model.phase_starts())
    set_stage(stage)
    world.synchronize()
    step = averaged = 0
    began, elapsed, step_s = time.perf_counter(), 0.0, 0.0
    while step < config.iterations:
        before, elapsed = elapsed, world.largest(time.perf_counter() - began)[0]
        step_s = max(0.9 * step_s, elapsed - before)
        if step and 0 < budget_s < elapsed + LONGER * step_s:
            place = f"train_time:{1000 * elapsed:.0f}ms step:{step}/{config.iterations}"
            world.print(f"stopping_early: wallclock_cap {place}")
            break
        multiplier = lr_multiplier(step, elapsed, config, budget_s)
        done = progress(step, elapsed, config, budget_s)
        share.fill_(done)
        if (now := stage_at(done, config, model.phase_starts())) != stage:
            stage = now
            set_stage(stage)
        loss = backward(losses[-1 if done >= recipe.quant.qat_from else 0], next(loader))
        if recipe.optim.grad_clip_norm > 0:
            optimizers.clip(recipe.optim.grad_clip_norm)
        decay = average_decay(step + 1, done, averaged, config)
        optimizers.step(multiplier, step, decay, weight_decay_multiplier(done, recipe.optim))
        averaged += decay < 1
        optimizers.zero_grad()
        step += 1
        if step % config.log_every == 0 or step <= 10:
            nats, spent = float(loss), 1000 * (time.perf_counter() - began)
            if not math.isfinite(nats):
                raise RuntimeError(f"the loss is {nats} at step {step}")
            world.print(
                f"step:{step}/{config.iterations} train_loss:{nats:.4f} train_time:{spent:.0f}ms "
                f"step_avg:{spent / step:.2f}ms"
            )
    world.synchronize()
    loader.close()
    model.phase = len(model.phase_starts())
    if averaged:
        with torch.no_grad():
            for name, average in optimizers.averages.items():
                optimizers.parameters[name].copy_(average)
    return time.perf_counter() - began
