"""The training loop: run steps until the clock or the step count runs out; a run can resume at any moment.

Like the contest's clock, the clock counts everything from the first real step on except validation. Warm-up steps run
before it, on real shapes, to compile and allocate; afterwards weights, optimizer and loader are restored. A GPU works
behind the host that reads the clock, so the host waits for it where the clock starts, stops or decides.
"""

from __future__ import annotations

import copy
import gc
import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from golfcore.config import RecipeConfig
from golfcore.errors import InputError
from golfcore.model.interface import Context, LanguageModel
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
from golfcore.training.compiled import LossFunction, Shape, choose_loss
from golfcore.training.feed import Feed, RunAhead
from golfcore.training.pace import Pace
from golfcore.training.runlog import RunLog, stopping_early
from golfcore.training.saving import BatchLoader, Saver, TrainState, odd_tensor, way_back

LONGER = 1.25  # a step may take that many times as long as the longest of the last ``RECENT``
# A step may be held up on a shared machine: of 50 runs of 3 s beside 14 other processes on 2 cores, 1 to 4 ended after
# their clock with the last 20 steps in view.
RECENT = 100  # steps
LEAD = 8  # steps that the host's word on the clock may be ahead of the GPU


class Trainer:
    """The trainer of one model by one recipe.

    Args:
        recipe: the recipe.
        module: the model on ``world.device``, in fp32; see ``golfcore.model.interface.LanguageModel``.
        loader: this rank's token batches.
        world: the ranks.
        log: gets losses and names the folder of checkpoints; it writes on rank 0 only.
        on_progress: called with ``(share of the run, note)`` after each step, on rank 0 only.
        evaluate: returns ``(val_loss, val_bpb)`` of the module; called every ``train.val_every`` steps.
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
        self.feed, self.ahead = Feed(loader, world.device), RunAhead(world.device)
        self.set_stage(self.stage)
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
        self.saver = Saver(
            module, self.optimizers, loader, log, train.checkpoint_every_s, recipe.data.identity(), writes=world.primary
        )
        world.before_end(lambda reason: log.line(f"error: {reason}"))
        self.expected_step_s = 0.0  # from the warm-up, for the monitor
        self.budget_s = recipe.steps_s
        self.loss_fn = self._choose_loss(module.loss, "loss")
        # Two functions, not a flag: what is compiled would keep the flag's first value for ever.
        self.aware_fn: LossFunction | None = None
        if recipe.quant.qat != "off":
            aware = aware_loss(module, module.parameter_roles(), recipe.quant)
            self.aware_fn = self._choose_loss(aware, "loss of quantized weights")
        self.aware = False  # whether this step's forward pass sees quantized weights
        self.progress = torch.zeros((), device=world.device)

    def _choose_loss(self, loss: LossFunction, name: str) -> LossFunction:
        shapes = list(dict.fromkeys(Shape(self._micro_rows(s), s.seq_len, s.phase) for s in self.stages))
        chosen, how = choose_loss(loss, self.module, self.recipe.train, shapes, self.world)
        self.log.line(f"{name}: {how}")
        return chosen

    # --- one step ---------------------------------------------------------------------------------------------------

    def set_stage(self, stage: Stage) -> None:
        """Set the shape of batches in the loader and the phase of the model, for the next steps."""
        self.stage = stage
        self.pace.restart()
        self.micro_rows = self._micro_rows(stage)
        self.loader.reshape(stage.batch_tokens, stage.seq_len, self.module.documents())
        self.module.phase = stage.phase

    def _micro_rows(self, stage: Stage) -> int:
        """Return the rows of a micro-batch; the last one of a step may have fewer."""
        rank_tokens = stage.batch_tokens // self.world.size
        return max(1, min(self.recipe.train.micro_batch_tokens, rank_tokens) // stage.seq_len)

    def backward(self) -> Tensor:
        """Compute the gradients of one batch's mean loss, over all micro-batches and ranks; return the mean loss."""
        batches = self.feed.take(self.micro_rows)
        rows = sum(batch.inputs_BT.size(0) for batch in batches)
        total = torch.zeros((), device=self.world.device)
        for number, batch in enumerate(batches, 1):
            share = batch.inputs_BT.size(0) / rows
            loss_fn = self.aware_fn if self.aware and self.aware_fn is not None else self.loss_fn
            loss, parts = loss_fn(batch, Context(self.progress))
            if number == len(batches):
                self.optimizers.begin_overlapped_reduction()
            (loss * (share / self.world.size)).backward()  # type: ignore[no-untyped-call]
            total += parts["ce"].float() * share
            self.world.heartbeat(f"step {self.state.step + 1}")
        self.feed.copy_ahead(self.micro_rows)
        return self.optimizers.reduce(total)

    def update(self, multiplier: float, share: float) -> None:
        """Clip the gradients, then update weights and average; ``share`` is the share of the run that is over."""
        train, optim, state = self.recipe.train, self.recipe.optim, self.state
        if optim.grad_clip_norm > 0:
            self.optimizers.clip(optim.grad_clip_norm)
        decay = average_decay(state.step + 1, share, state.averaged, train)
        self.optimizers.step(multiplier, state.step, decay, weight_decay_multiplier(share, optim))
        state.averaged += decay < 1
        self.optimizers.zero_grad()

    # --- the run ----------------------------------------------------------------------------------------------------

    def warm_up(self) -> None:
        """Run ``train.warmup_steps`` steps of every stage, and restore every state that they changed.

        Raises:
            InputError: the clock is shorter than one step.
        """
        if not self.recipe.train.warmup_steps:
            return
        before = copy.deepcopy(self.saver.tensors())
        averaged, step_s = self.state.averaged, 0.0
        for stage, aware in itertools.product(self.stages, [False] if self.aware_fn is None else [False, True]):
            self.set_stage(stage)
            self.aware = aware
            for _ in range(self.recipe.train.warmup_steps):
                self.ahead.finish()
                started = time.perf_counter()
                self.backward()
                self.update(1.0, 0.0)
                self.ahead.finish()
                seconds = time.perf_counter() - started
            step_s = max(step_s, seconds)  # of a stage's last step: the first ones compile
        self.saver.restore(before)
        self.state.averaged = averaged
        self.set_stage(self.stages[0])
        self.expected_step_s = step_s
        self._judge_clock(*self.world.from_primary(step_s))

    def _judge_clock(self, step_s: float) -> None:
        if not self.budget_s:
            return
        if LONGER * step_s > self.budget_s:
            raise InputError(
                f"track.train_s = {self.recipe.track.train_s:g} leaves {self.budget_s:.3g} s for steps, and one took "
                f"{step_s:.3g} s in the warm-up: give more seconds, or lower train.batch_tokens or the model"
            )
        possible = min(self.recipe.train.iterations, int(self.budget_s / step_s))
        if self.recipe.optim.muon_momentum_warmup_steps > possible:
            self.log.line(
                f"note: optim.muon_momentum_warmup_steps = {self.recipe.optim.muon_momentum_warmup_steps}, but the "
                f"clock allows about {possible} steps"
            )

    def keep_free(self, seconds: float) -> None:
        """End the steps so early that ``seconds`` of the clock are left for work on training text after them.

        Raises:
            InputError: no time would be left for steps.
        """
        track = self.recipe.track
        if not self.budget_s:
            return
        self.budget_s = min(self.budget_s, track.plan_s - seconds)
        if self.budget_s <= 0:
            raise InputError(
                f"track.train_s = {track.train_s:g} leaves no time for steps: Hessians of training text take "
                f"{seconds:.3g} s of it: give more seconds, or set quant.method = rtn or quant.calibration = generated"
            )

    def run(self) -> TrainState:
        """Train from the present state to the end; the module then holds the weights to keep."""
        gc.collect()
        gc.freeze()  # what torch and the model have allocated by now stays; the collector need not go through it
        self.module.train()
        self.ahead.finish()
        self.world.barrier()
        try:
            with self.world.expect_progress(self.expected_step_s):
                self._steps()
        finally:
            gc.unfreeze()
            self.saver.wait()
        self.set_stage(self.stages[-1])
        self._use_average()
        return self.state

    def _steps(self) -> None:
        train, state = self.recipe.train, self.state
        self.ahead.finish()
        started = time.perf_counter() - state.train_s
        recent_s: deque[float] = deque(maxlen=RECENT)
        while state.step < train.iterations:
            # A step that might end late is not begun: a fraction of a step is lost, and the budget is kept even where
            # other work on the machine makes steps uneven. Rank 0 decides for all, by its own clock.
            elapsed, late, near = self._look(started, max(recent_s, default=self.expected_step_s))
            elapsed, stop, due = self.world.from_primary(elapsed, late, self.saver.is_due(self.state, recent_s))
            if due:
                self.save()
            if stop:
                state.train_s = max(state.train_s, elapsed)
                self.log.line(stopping_early(state.step, train.iterations, 1000 * state.train_s))
                break
            multiplier = lr_multiplier(state.step, elapsed, train, self.budget_s)
            share = progress(state.step, elapsed, train, self.budget_s)
            self._advance_stage(share)
            self.aware = share >= self.recipe.quant.qat_from
            loss = self.backward()
            self._stop_at_nan(loss)
            self.update(multiplier, share)
            state.step += 1
            state.tokens += self.stage.batch_tokens
            self.ahead.note_step()
            self.world.heartbeat(f"step {state.step}", step=True)
            if near:
                self.ahead.finish()
            now = time.perf_counter() - started
            recent_s.append(now - elapsed)
            state.train_s = now
            if changed := self.pace.note(recent_s[-1]):
                self.log.line(changed)
            started += self._between_steps(loss, multiplier, recent_s[-1])
        else:
            self.ahead.finish()
            state.train_s = time.perf_counter() - started

    def _look(self, started: float, longest_s: float) -> tuple[float, bool, bool]:
        """Return the seconds of the clock, whether another step could end after the budget, and whether that is near.

        Near the end each step is waited for, so that its time is the device's. Before, the host is ahead of it.
        """
        elapsed = time.perf_counter() - started
        near = 0 < self.budget_s < elapsed + LEAD * max(longest_s, self.expected_step_s)
        if near:
            self.ahead.finish()
            elapsed = time.perf_counter() - started
        late = 0 < self.budget_s < elapsed + LONGER * longest_s
        return elapsed, late and self.state.step > 0, near  # a run has a step: the warm-up has judged the clock

    def _advance_stage(self, share: float) -> None:
        """Enter the next stage if its time has come, and write it to the log."""
        self.progress.fill_(share)
        stage = stage_at(share, self.recipe.train, self.module.phase_starts())
        if stage != self.stage:
            self.log.line(
                f"stage: step:{self.state.step} share:{share:.3f} batch_tokens:{stage.batch_tokens} "
                f"seq_len:{stage.seq_len} phase:{stage.phase}"
            )
            self.set_stage(stage)

    def _stop_at_nan(self, loss: Tensor) -> None:
        """Raise InputError if the loss is not finite, before it reaches the weights.

        On a GPU the loss is checked only when it is logged anyway, since reading it makes the GPU wait. ``save`` checks
        the weights again.
        """
        step = self.state.step + 1
        if self.world.device.type != "cpu" and step > 10 and step % self.recipe.train.log_every:
            return
        if not math.isfinite(float(loss)):
            raise InputError(
                f"the loss is {float(loss)} at step {step}: {odd_tensor(self.optimizers)}; {way_back(self.log.run_dir)}"
            )

    def _between_steps(self, loss: Tensor, multiplier: float, step_s: float) -> float:
        """Log and validate when due; return the seconds that do not count."""
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
            self.ahead.finish()  # the step is on the clock, what follows is not
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

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def save(self, *, final: bool = False) -> None:
        """Begin a checkpoint, which rank 0 writes; with ``final`` it is written when this returns.

        Every rank calls it.

        Raises:
            InputError: a weight is not finite (the last checkpoint stays).
            MachineError: with ``final``, the disk stays full; the message says where the weights are.
        """
        self.saver.save(self.state, self.choices, final=final)

    def resume(self, saved: Mapping[str, Any]) -> None:
        """Restore a checkpoint and go on from it.

        Raises:
            InputError: the checkpoint belongs to a run that had ended, or to another model.
        """
        self.state = self.saver.resume(saved)
