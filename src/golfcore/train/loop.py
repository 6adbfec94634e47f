"""The training loop: steps until the clock or the step count runs out, resumable at any moment.

The clock counts what the contest's does: everything from the first real step on except validation. Warm-up steps run
before it, on real shapes, to compile and allocate; weights, optimiser and loader are restored after them.
"""

from __future__ import annotations

import copy
import gc
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from golfcore.config import RecipeConfig
from golfcore.errors import InputError
from golfcore.model.base import Batch, Context, LanguageModel
from golfcore.optim.optimizers import Optimizers
from golfcore.optim.schedule import lr_multiplier, progress
from golfcore.train.checkpoint import save_checkpoint
from golfcore.train.runlog import RunLog, stopping_early
from golfcore.train.world import World


class Loader(Protocol):
    """What the loop asks of a loader: this rank's share of each step, and a position that can be saved."""

    def __next__(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@dataclass
class TrainState:
    """Where a run stands, apart from the tensors."""

    step: int = 0
    train_s: float = 0.0  # the clock
    tokens: int = 0
    saved_at: float = field(default_factory=time.monotonic)


class Trainer:
    """One model on its way through one recipe.

    Args:
        recipe: what to do.
        module: the model on ``world.device``, in fp32; see ``golfcore.model.base.LanguageModel``.
        loader: this rank's token batches.
        world: the ranks.
        log: where losses and checkpoints go; writes on rank 0 only.
        tick: told ``(share of the run, note)`` after each step, on rank 0 only.
        evaluate: gives ``(val_loss, val_bpb)`` of the module as it stands; called every ``train.val_every`` steps.
    """

    def __init__(
        self,
        recipe: RecipeConfig,
        module: LanguageModel,
        loader: Loader,
        world: World,
        log: RunLog,
        tick: Callable[[float, str], None] | None = None,
        evaluate: Callable[[LanguageModel], tuple[float, float]] | None = None,
    ) -> None:
        self.recipe, self.module, self.loader, self.world = recipe, module, loader, world
        self.log, self.tick, self.evaluate = log, tick, evaluate
        train = recipe.train
        rank_tokens = train.batch_tokens // world.size
        if train.batch_tokens % (world.size * train.seq_len):
            raise InputError(
                f"train.batch_tokens = {train.batch_tokens} does not split over {world.size} ranks into rows of "
                f"train.seq_len = {train.seq_len}: use a multiple of {world.size * train.seq_len}"
            )
        self.micro_rows = max(1, min(train.micro_batch_tokens, rank_tokens) // train.seq_len)
        self.optimizers = Optimizers(
            module,
            module.parameter_roles(),
            recipe.optim,
            tied=getattr(recipe.model, "tie_embeddings", True),
            averaged=train.ema_decay > 0,
        )
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.state = TrainState()
        self.budget_s = recipe.track.train_s
        self.loss_fn = torch.compile(module.loss) if train.compile else module.loss
        self.progress = torch.zeros((), device=world.device)

    # --- one step ---------------------------------------------------------------------------------------------------

    def backward(self) -> Tensor:
        """Gradients of one batch's mean loss, summed over micro-batches; returns this rank's mean loss."""
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
            loss, parts = self.loss_fn(batch, Context(self.progress))
            (loss * share).backward()
            total += parts["ce"].float() * share
        return total

    def update(self, multiplier: float) -> None:
        """Reduces and clips the gradients, then moves the weights and their average."""
        train, optim = self.recipe.train, self.recipe.optim
        self.world.mean_gradients(self.parameters)
        if optim.grad_clip_norm > 0:
            torch.nn.utils.clip_grad_norm_(self.parameters, optim.grad_clip_norm)
        # Early on the average is taken over what there is, so that it does not remember the initial weights.
        decay = min(train.ema_decay, (1 + self.state.step) / (10 + self.state.step))
        self.optimizers.step(multiplier, self.state.step, decay)
        self.optimizers.zero_grad()

    # --- the run ----------------------------------------------------------------------------------------------------

    def warm_up(self) -> None:
        """Runs ``train.warmup_steps`` steps and restores every state that they moved."""
        if not self.recipe.train.warmup_steps:
            return
        before = copy.deepcopy(self._tensors())
        for _ in range(self.recipe.train.warmup_steps):
            self.backward()
            self.update(1.0)
        self._restore(before)

    def run(self) -> TrainState:
        """Trains from where the state stands to the end; the module then holds the weights to keep."""
        gc.collect()
        gc.freeze()  # what torch and the model have allocated by now stays; the collector need not go through it
        try:
            self._steps()
        finally:
            gc.unfreeze()
        self._use_average()
        return self.state

    def _steps(self) -> None:
        train, state = self.recipe.train, self.state
        self.module.train()
        self.world.barrier()
        started = time.perf_counter() - state.train_s
        recent_s: deque[float] = deque(maxlen=20)
        while state.step < train.iterations:
            elapsed = self.world.from_primary(time.perf_counter() - started)
            # A step that might end late is not begun: a fraction of a step is lost, and the budget is kept even where
            # other work on the machine makes steps uneven.
            if self.budget_s and elapsed + 1.25 * max(recent_s, default=0.0) > self.budget_s:
                self.log.line(stopping_early(state.step, train.iterations, 1000 * state.train_s))
                break
            multiplier = lr_multiplier(state.step, elapsed, train, self.budget_s)
            self.progress.fill_(progress(state.step, elapsed, train, self.budget_s))
            loss = self.backward()
            self.update(multiplier)
            state.step += 1
            state.tokens += train.batch_tokens
            now = time.perf_counter() - started
            recent_s.append(now - elapsed)
            state.train_s = now
            paused = self._between_steps(loss, multiplier, recent_s[-1])
            started += paused

    def _between_steps(self, loss: Tensor, multiplier: float, step_s: float) -> float:
        """Logs, validates and saves when due; returns the seconds that do not count."""
        train, state = self.recipe.train, self.state
        if state.step % train.log_every == 0 or state.step <= 10:
            mean = float(self.world.sum(loss.clone())) / self.world.size
            if not math.isfinite(mean):
                raise InputError(
                    f"the loss is {mean} at step {state.step}: lower optim.matrix_lr and the other rates, or set "
                    "optim.grad_clip_norm"
                )
            self.log.train(
                state.step, train.iterations, loss=mean, train_s=state.train_s, tokens=state.tokens,
                lr_mult=multiplier, step_ms=1000 * step_s,
            )  # fmt: skip
        if self.tick is not None and self.world.primary:
            self.tick(progress(state.step, state.train_s, train, self.budget_s), f"step {state.step}")
        paused = 0.0
        if train.val_every and state.step % train.val_every == 0 and self.evaluate is not None:
            before = time.perf_counter()
            val_loss, val_bpb = self.evaluate(self.module)
            self.module.train()
            self.log.val(state.step, train.iterations, loss=val_loss, bpb=val_bpb, train_s=state.train_s)
            paused = time.perf_counter() - before
        if train.checkpoint_every_s and self.world.from_primary(time.monotonic()) - state.saved_at > (
            train.checkpoint_every_s
        ):
            self.save()
        return paused

    @torch.no_grad()
    def _use_average(self) -> None:
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

    def save(self, *, final: bool = False) -> None:
        """Writes a checkpoint on rank 0; the clock goes on meanwhile. ``weights`` are those to keep, averaged if so."""
        state = self.state
        state.saved_at = time.monotonic()
        if not self.world.primary:
            return
        weights = self.module.state_dict() | ({} if final else self.optimizers.averages)
        save_checkpoint(
            self.log.run_dir,
            {
                **self._tensors(), "weights": weights, "final": final,
                "step": state.step, "train_s": state.train_s, "tokens": state.tokens,
            },
        )  # fmt: skip

    def resume(self, saved: dict[str, Any]) -> None:
        """Goes back to where a checkpoint stands.

        Raises:
            InputError: the checkpoint is of a run that had ended.
        """
        if saved["final"]:
            raise InputError(
                f"the run in {self.log.run_dir} has ended after {saved['step']} steps; there is nothing to resume"
            )
        self._restore(saved)
        self.state.step, self.state.train_s, self.state.tokens = saved["step"], saved["train_s"], saved["tokens"]


def choose_precision(wish: str, device: torch.device) -> tuple[torch.dtype, str]:
    """The activations' dtype and why.

    ``auto`` takes bf16 on a GPU and elsewhere whichever multiplies faster here, by a trial of a few milliseconds.
    """
    if wish != "auto":
        return (torch.bfloat16 if wish == "bf16" else torch.float32), "as the recipe says"
    if device.type == "cuda":
        return torch.bfloat16, "bf16 tensor cores"
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = torch.ones(2048, 256, dtype=dtype), torch.ones(256, 512, dtype=dtype)
        trials = []
        for _ in range(6):
            start = time.perf_counter()
            a @ b
            trials.append(time.perf_counter() - start)
        seconds[dtype] = min(trials)
    ratio = seconds[torch.float32] / seconds[torch.bfloat16]
    chosen = torch.bfloat16 if ratio > 1 else torch.float32
    return chosen, f"a bf16 product took 1/{ratio:.2f} of fp32's time"
