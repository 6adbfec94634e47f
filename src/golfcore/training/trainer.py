"""The training loop: steps until the clock or the step count runs out, resumable at any moment.

The clock counts what the contest's does: everything from the first real step on except validation. Warm-up steps run
before it, on real shapes, to compile and allocate; weights, optimiser and loader are restored after them.
"""

from __future__ import annotations

import copy
import gc
import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from golfcore.config import RecipeConfig
from golfcore.errors import InputError
from golfcore.model.interface import Batch, Context, LanguageModel
from golfcore.optim.optimizers import Optimizers
from golfcore.optim.schedule import (
    Stage,
    average_decay,
    lr_multiplier,
    progress,
    stage_at,
    stages,
    weight_decay_multiplier,
)
from golfcore.quant.qat import aware_loss
from golfcore.ranks.world import World
from golfcore.run_folder import CHECKPOINT
from golfcore.training.checkpoint import CheckpointWriter, save_checkpoint
from golfcore.training.compiled import LossFunction, choose_loss
from golfcore.training.pace import Pace
from golfcore.training.runlog import RunLog, stopping_early


class BatchLoader(Protocol):
    """What the loop asks of a loader: this rank's share of each step, in any shape, and a position to save."""

    def __next__(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]: ...

    def reshape(self, batch_tokens: int, seq_len: int) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@dataclass
class TrainState:
    """Where a run stands, apart from the tensors."""

    step: int = 0
    train_s: float = 0.0  # the clock
    tokens: int = 0
    averaged: int = 0  # weights that have joined the average
    saved_at: float = field(default_factory=time.monotonic)


class Trainer:
    """One model on its way through one recipe.

    Args:
        recipe: what to do.
        module: the model on ``world.device``, in fp32; see ``golfcore.model.interface.LanguageModel``.
        loader: this rank's token batches.
        world: the ranks.
        log: where losses and checkpoints go; writes on rank 0 only.
        on_progress: called with ``(share of the run, note)`` after each step, on rank 0 only.
        evaluate: gives ``(val_loss, val_bpb)`` of the module as it stands; called every ``train.val_every`` steps.
    """

    def __init__(
        self,
        recipe: RecipeConfig,
        module: LanguageModel,
        loader: BatchLoader,
        world: World,
        log: RunLog,
        on_progress: Callable[[float, str], None] | None = None,
        evaluate: Callable[[LanguageModel], tuple[float, float]] | None = None,
    ) -> None:
        self.recipe, self.module, self.loader, self.world = recipe, module, loader, world
        self.log, self.on_progress, self.evaluate = log, on_progress, evaluate
        train = recipe.train
        self.stages = stages(train, module.phase_starts())
        for stage in self.stages:
            if stage.batch_tokens % (world.size * stage.seq_len):
                raise InputError(
                    f"train.batch_tokens = {stage.batch_tokens} does not split over {world.size} ranks into rows of "
                    f"train.seq_len = {stage.seq_len}: use a multiple of {world.size * stage.seq_len}"
                )
        self.stage = self.stages[0]
        self.pace = Pace()
        self.enter(self.stage)
        self.optimizers = Optimizers(
            module,
            module.parameter_roles(),
            recipe.optim,
            tied=getattr(recipe.model, "tie_embeddings", True),
            averaged=train.ema_decay > 0 or train.swa_start > 0,
            ranks=world,
        )
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.state = TrainState()
        self.choices: dict[str, Any] = {}  # what trials settled for the whole run; every checkpoint carries it
        self.writer = CheckpointWriter(log.run_dir) if world.primary else None
        world.before_end(lambda reason: log.line(f"error: {reason}"))
        self.expected_step_s = 0.0  # from the warm-up, for the monitor
        self.budget_s = recipe.steps_s
        self.loss_fn = self._choose_loss(module.loss, "loss")
        # Two functions, not a flag: what is compiled would keep the flag's first value for ever.
        self.aware_fn: LossFunction | None = None
        if recipe.quant.qat != "off":
            aware = aware_loss(module, module.parameter_roles(), recipe.quant)
            self.aware_fn = self._choose_loss(aware, "loss of quantised weights")
        self.aware = False  # whether this step's forward pass sees quantised weights
        self.progress = torch.zeros((), device=world.device)

    def _choose_loss(self, loss: LossFunction, name: str) -> LossFunction:
        chosen, how = choose_loss(
            loss, self.module, self.recipe.train, self.micro_rows, self.stage.seq_len, self.world
        )  # fmt: skip
        self.log.line(f"{name}: {how}")
        return chosen

    # --- one step ---------------------------------------------------------------------------------------------------

    def enter(self, stage: Stage) -> None:
        """Gives the loader and the model what the next steps look like."""
        self.stage = stage
        self.pace.restart()
        rank_tokens = stage.batch_tokens // self.world.size
        self.micro_rows = max(1, min(self.recipe.train.micro_batch_tokens, rank_tokens) // stage.seq_len)
        self.loader.reshape(stage.batch_tokens, stage.seq_len)
        self.module.phase = stage.phase

    def backward(self) -> Tensor:
        """Gradients of one batch's mean loss, summed over micro-batches and ranks; returns the mean loss."""
        inputs, targets = next(self.loader)
        rows = inputs.shape[0]
        total = torch.zeros((), device=self.world.device)
        for start in range(0, rows, self.micro_rows):
            piece = slice(start, start + self.micro_rows)
            batch = Batch(
                torch.from_numpy(inputs[piece]).to(self.world.device, non_blocking=True),
                torch.from_numpy(targets[piece]).to(self.world.device, non_blocking=True),
            )
            share = batch.inputs_BT.size(0) / rows
            loss_fn = self.aware_fn if self.aware and self.aware_fn is not None else self.loss_fn
            loss, parts = loss_fn(batch, Context(self.progress))
            if start + self.micro_rows >= rows:
                self.optimizers.arm()
            (loss * (share / self.world.size)).backward()
            total += parts["ce"].float() * share
            self.world.note(f"step {self.state.step + 1}")
        return self.optimizers.reduce(total)

    def update(self, multiplier: float, share: float) -> None:
        """Clips the gradients, then moves the weights and their average; ``share`` is the run's."""
        train, optim, state = self.recipe.train, self.recipe.optim, self.state
        if optim.grad_clip_norm > 0:
            self.optimizers.clip(optim.grad_clip_norm)
        decay = average_decay(state.step + 1, share, state.averaged, train)
        self.optimizers.step(multiplier, state.step, decay, weight_decay_multiplier(share, optim))
        state.averaged += decay < 1
        self.optimizers.zero_grad()

    # --- the run ----------------------------------------------------------------------------------------------------

    def warm_up(self) -> None:
        """Runs ``train.warmup_steps`` steps of every stage and restores every state that they moved.

        Raises:
            InputError: the clock is shorter than one step.
        """
        if not self.recipe.train.warmup_steps:
            return
        before = copy.deepcopy(self._tensors())
        averaged, step_s = self.state.averaged, 0.0
        for stage, aware in itertools.product(self.stages, [False] if self.aware_fn is None else [False, True]):
            self.enter(stage)
            self.aware = aware
            for _ in range(self.recipe.train.warmup_steps):
                started = time.perf_counter()
                self.backward()
                self.update(1.0, 0.0)
                seconds = time.perf_counter() - started
            step_s = max(step_s, seconds)  # of a stage's last step: the first ones compile
        self._restore(before)
        self.state.averaged = averaged
        self.enter(self.stages[0])
        self.expected_step_s = step_s
        self._judge_clock(*self.world.from_primary(step_s))

    def _judge_clock(self, step_s: float) -> None:
        if not self.budget_s:
            return
        if step_s > self.budget_s:
            raise InputError(
                f"track.train_s = {self.budget_s:g} is shorter than one step, which took {step_s:.2f} s in the "
                "warm-up: give more seconds, or lower train.batch_tokens or the model"
            )
        possible = min(self.recipe.train.iterations, int(self.budget_s / step_s))
        if self.recipe.optim.muon_momentum_warmup_steps > possible:
            self.log.line(
                f"note: optim.muon_momentum_warmup_steps = {self.recipe.optim.muon_momentum_warmup_steps}, but the "
                f"clock allows about {possible} steps"
            )

    def run(self) -> TrainState:
        """Trains from where the state stands to the end; the module then holds the weights to keep."""
        gc.collect()
        gc.freeze()  # what torch and the model have allocated by now stays; the collector need not go through it
        self.module.train()
        self.world.barrier()
        try:
            with self.world.watched(self.expected_step_s):
                self._steps()
        finally:
            gc.unfreeze()
            if self.writer is not None:
                self.writer.wait()
        self.enter(self.stages[-1])
        self._use_average()
        return self.state

    def _steps(self) -> None:
        train, state = self.recipe.train, self.state
        started = time.perf_counter() - state.train_s
        recent_s: deque[float] = deque(maxlen=20)
        while state.step < train.iterations:
            # A step that might end late is not begun: a fraction of a step is lost, and the budget is kept even where
            # other work on the machine makes steps uneven. Rank 0 decides for all, by its own clock.
            elapsed = time.perf_counter() - started
            late = elapsed + 1.25 * max(recent_s, default=0.0) > self.budget_s > 0
            elapsed, stop, due = self.world.from_primary(elapsed, late, self._save_is_due(recent_s))
            if due:
                self.save()
            if stop:
                self.log.line(stopping_early(state.step, train.iterations, 1000 * state.train_s))
                break
            multiplier = lr_multiplier(state.step, elapsed, train, self.budget_s)
            share = progress(state.step, elapsed, train, self.budget_s)
            self._follow(share)
            self.aware = share >= self.recipe.quant.qat_from
            loss = self.backward()
            self._stop_at_nan(loss)
            self.update(multiplier, share)
            state.step += 1
            state.tokens += self.stage.batch_tokens
            self.world.note(f"step {state.step}", step=True)
            now = time.perf_counter() - started
            recent_s.append(now - elapsed)
            state.train_s = now
            if changed := self.pace.note(recent_s[-1]):
                self.log.line(changed)
            started += self._between_steps(loss, multiplier, recent_s[-1])

    def _follow(self, share: float) -> None:
        """Enters the stage that has come, and says so in the log."""
        self.progress.fill_(share)
        stage = stage_at(share, self.recipe.train, self.module.phase_starts())
        if stage != self.stage:
            self.log.line(
                f"stage: step:{self.state.step} share:{share:.3f} batch_tokens:{stage.batch_tokens} "
                f"seq_len:{stage.seq_len} phase:{stage.phase}"
            )
            self.enter(stage)

    def _stop_at_nan(self, loss: Tensor) -> None:
        """Raises InputError where the loss is not finite, before it reaches the weights.

        A GPU is asked only when the loss is logged anyway: asking makes it wait. ``save`` looks again.
        """
        step = self.state.step + 1
        if self.world.device.type != "cpu" and step > 10 and step % self.recipe.train.log_every:
            return
        if not math.isfinite(float(loss)):
            raise InputError(f"the loss is {float(loss)} at step {step}: {self._odd_tensor()}; {self._way_back()}")

    def _odd_tensor(self) -> str:
        for what, tensors in (
            ("parameter", self.optimizers.parameters),
            ("gradient of", {n: p.grad for n, p in self.optimizers.parameters.items()}),
        ):
            for name, tensor in tensors.items():
                if tensor is not None and not torch.isfinite(tensor).all():
                    return f"{what} {name} is not finite"
        return "every parameter and gradient is finite, so it arose in the forward pass"

    def _way_back(self) -> str:
        saved = self.log.run_dir / CHECKPOINT
        kept = f"the last good checkpoint stays in {saved}; " if saved.exists() else ""
        return f"{kept}lower optim.matrix_lr and the other rates, or set optim.grad_clip_norm"

    def _between_steps(self, loss: Tensor, multiplier: float, step_s: float) -> float:
        """Logs and validates when due; returns the seconds that do not count."""
        train, state = self.recipe.train, self.state
        if state.step % train.log_every == 0 or state.step <= 10:
            self.log.train(
                state.step, train.iterations, loss=float(loss), train_s=state.train_s, tokens=state.tokens,
                lr_mult=multiplier, step_ms=1000 * step_s,
            )  # fmt: skip
        if self.on_progress is not None and self.world.primary:
            self.on_progress(progress(state.step, state.train_s, train, self.budget_s), f"step {state.step}")
        paused = 0.0
        if train.val_every and state.step % train.val_every == 0 and self.evaluate is not None:
            before = time.perf_counter()
            val_loss, val_bpb = self.evaluate(self.module)
            self.module.train()
            self.log.val(state.step, train.iterations, loss=val_loss, bpb=val_bpb, train_s=state.train_s)
            paused = time.perf_counter() - before
        return paused

    @torch.no_grad()
    def _use_average(self) -> None:
        if not self.state.averaged:
            return  # SWA that had not begun
        for name, average in self.optimizers.averages.items():
            self.optimizers.parameters[name].copy_(average)

    # --- state ------------------------------------------------------------------------------------------------------

    def _tensors(self) -> dict[str, Any]:
        return {
            "module": self.module.state_dict(),
            "optimizers": self.optimizers.state_dict(),
            "loader": self.loader.state_dict(),
        }

    def _restore(self, saved: dict[str, Any]) -> None:
        self.module.load_state_dict(saved["module"])
        self.optimizers.load_state_dict(saved["optimizers"])
        self.loader.load_state_dict(saved["loader"])

    def _save_is_due(self, recent_s: Iterable[float]) -> bool:
        """On rank 0: whether a checkpoint begun now will be on the disk before ``checkpoint_every_s`` are over."""
        every_s = self.recipe.train.checkpoint_every_s
        if self.writer is None or not every_s or not self.state.step or self.writer.busy:
            return False
        if failure := self.writer.failure():
            self.log.line(f"warning: no checkpoint was written: {failure}; training goes on")
        ahead_s = min(every_s / 2, self.writer.lag_s + 2 * max(recent_s, default=0.0))
        return time.monotonic() - self.state.saved_at >= every_s - ahead_s

    def save(self, *, final: bool = False) -> None:
        """Begins a checkpoint, whose file rank 0 writes; with ``final`` it is written when this returns.

        Every rank calls it. ``weights`` in it are those to keep, averaged if so.

        Raises:
            InputError: a weight is not finite, and the checkpoint before stays; or, with ``final``, the disk is full.
        """
        state, tensors = self.state, self._tensors()
        state.saved_at = time.monotonic()
        if self.writer is None:
            return
        averages = self.optimizers.averages if state.averaged and not final else {}
        weights = tensors["module"] | averages
        if not all(bool(torch.isfinite(w).all()) for w in weights.values()):
            raise InputError(f"after step {state.step} {self._odd_tensor()}; {self._way_back()}")
        checkpoint = {
            **tensors, "weights": weights, "final": final, "choices": self.choices,
            "step": state.step, "train_s": state.train_s, "tokens": state.tokens, "averaged": state.averaged,
        }  # fmt: skip
        if final:
            self.writer.wait()
            save_checkpoint(self.log.run_dir, checkpoint)
        else:
            self.writer.submit(checkpoint)

    def resume(self, saved: dict[str, Any]) -> None:
        """Goes back to where a checkpoint stands.

        Raises:
            InputError: the checkpoint is of a run that had ended, or of another model.
        """
        if saved["final"]:
            raise InputError(
                f"the run in {self.log.run_dir} has ended after {saved['step']} steps; there is nothing to resume"
            )
        self._require_same_model(saved["module"])
        self._restore(saved)
        self.state = TrainState(saved["step"], saved["train_s"], saved["tokens"], saved["averaged"])

    def _require_same_model(self, saved: Mapping[str, Tensor]) -> None:
        own = {name: tuple(tensor.shape) for name, tensor in self.module.state_dict().items()}
        theirs = {name: tuple(tensor.shape) for name, tensor in saved.items()}
        for name in sorted(own.keys() | theirs.keys()):
            if own.get(name) != theirs.get(name):
                raise InputError(
                    f"the checkpoint in {self.log.run_dir} is of another model: {name} is "
                    f"{theirs.get(name, 'absent')} there and {own.get(name, 'absent')} in this run's; resume with the "
                    "config that it was trained with"
                )
