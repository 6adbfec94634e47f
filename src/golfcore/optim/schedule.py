"""Schedule what changes along a run: learning rates, momentum, decays, averages, batch sizes, phases of the model.

Time is the share of the wall clock if there is a time limit, else the share of the steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from golfcore.config import OptimConfig, TrainConfig


def progress(step: int, elapsed_s: float, train: TrainConfig, budget_s: float) -> float:
    """Return the share of the run that is over, 0 to 1: of the clock or of the steps, whichever is further."""
    by_clock = elapsed_s / budget_s if budget_s > 0 else 0.0
    return min(1.0, max(by_clock, step / train.iterations))


def lr_multiplier(step: int, elapsed_s: float, train: TrainConfig, budget_s: float) -> float:
    """Return the factor on learning rates: 1, then linearly towards 0 at the end, but at least ``lr_floor``.

    With ``warmdown_fraction`` the decay takes that share of the run. Otherwise it takes ``warmdown_iters`` steps, in
    the contest's form: under a wall clock their length is guessed from the mean step so far.
    """
    return max(train.lr_floor, min(1.0, _decay(step, elapsed_s, train, budget_s)))


def _decay(step: int, elapsed_s: float, train: TrainConfig, budget_s: float) -> float:
    if train.warmdown_fraction > 0:
        return (1 - progress(step, elapsed_s, train, budget_s)) / train.warmdown_fraction
    if train.warmdown_iters == 0:
        return 1.0
    by_steps = max(0.0, (train.iterations - step) / train.warmdown_iters)
    if budget_s <= 0 or step == 0:
        return by_steps
    warmdown_s = train.warmdown_iters * elapsed_s / step
    return min(by_steps, max(0.0, budget_s - elapsed_s) / warmdown_s if warmdown_s > 0 else 1.0)


def weight_decay_multiplier(share: float, optim: OptimConfig) -> float:
    """Return the factor on weight decays: 1 until ``weight_decay_taper``, then linearly to ``weight_decay_end``."""
    if share <= optim.weight_decay_taper:
        return 1.0
    late = (share - optim.weight_decay_taper) / (1 - optim.weight_decay_taper)
    return 1.0 + late * (optim.weight_decay_end - 1.0)


def average_decay(step: int, share: float, averaged: int, train: TrainConfig) -> float:
    """Return the share of the average that stays when the weights of ``step`` join it; 1 if they do not join.

    Args:
        step: number of steps done, from 1.
        share: share of the run that is over.
        averaged: how many times weights have joined the average before, for SWA.
        train: has ``ema_decay``, or ``swa_start`` and ``swa_every``. Early in the run the exponential average is taken
            over fewer steps, so that it does not remember the initial weights.
    """
    if train.ema_decay:
        return min(train.ema_decay, step / (9 + step))
    if train.swa_start and share >= train.swa_start and step % train.swa_every == 0:
        return averaged / (averaged + 1)
    return 1.0


class Stage(NamedTuple):
    """The shape of a step: tokens over all ranks, tokens per row, and the model's phase."""

    batch_tokens: int
    seq_len: int
    phase: int


def stage_at(share: float, train: TrainConfig, phase_starts: Sequence[float] = ()) -> Stage:
    """Return the stage at a share of the run."""
    return Stage(
        _ramp(share, train.batch_ramp, train.batch_ramp_until, train.batch_tokens),
        _ramp(share, train.seq_ramp, train.seq_ramp_until, train.seq_len),
        sum(start <= share for start in phase_starts),
    )


def stages(train: TrainConfig, phase_starts: Sequence[float] = ()) -> list[Stage]:
    """Return every stage of a run, in order, each once; a warm-up has to compile all of them."""
    turns = sorted({0.0, *train.batch_ramp_until, *train.seq_ramp_until, *phase_starts})
    return list(dict.fromkeys(stage_at(share, train, phase_starts) for share in turns))


def _ramp(share: float, values: Sequence[int], until: Sequence[float], last: int) -> int:
    return next((value for value, end in zip(values, until, strict=True) if share < end), last)


def muon_momentum(step: int, optim: OptimConfig) -> float:
    """Return Muon's momentum, linear from ``muon_momentum_warmup_start`` over ``muon_momentum_warmup_steps``."""
    if optim.muon_momentum_warmup_steps == 0:
        return optim.muon_momentum
    share = min(1.0, step / optim.muon_momentum_warmup_steps)
    return (1 - share) * optim.muon_momentum_warmup_start + share * optim.muon_momentum
