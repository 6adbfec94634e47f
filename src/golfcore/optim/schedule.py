"""Learning-rate and momentum schedules. The clock is the wall clock when there is one, else the step count."""

from __future__ import annotations

from golfcore.config import OptimConfig, TrainConfig


def progress(step: int, elapsed_s: float, train: TrainConfig, budget_s: float) -> float:
    """Share of the run that is spent, 0 to 1: whichever of the clock and the step count is further on."""
    by_clock = elapsed_s / budget_s if budget_s > 0 else 0.0
    return min(1.0, max(by_clock, step / train.iterations))


def lr_multiplier(step: int, elapsed_s: float, train: TrainConfig, budget_s: float) -> float:
    """1, then linearly to 0 at the end.

    With ``warmdown_fraction`` the decay takes that share of the run. Otherwise it takes ``warmdown_iters`` steps, in
    the contest's form: under a wall clock their length is guessed from the mean step so far.
    """
    if train.warmdown_fraction > 0:
        return min(1.0, (1 - progress(step, elapsed_s, train, budget_s)) / train.warmdown_fraction)
    if train.warmdown_iters == 0:
        return 1.0
    by_steps = min(1.0, max(0.0, (train.iterations - step) / train.warmdown_iters))
    if budget_s <= 0 or step == 0:
        return by_steps
    warmdown_s = train.warmdown_iters * elapsed_s / step
    return min(by_steps, max(0.0, budget_s - elapsed_s) / warmdown_s if warmdown_s > 0 else 1.0)


def muon_momentum(step: int, optim: OptimConfig) -> float:
    """Linear from ``muon_momentum_warmup_start`` to ``muon_momentum`` over ``muon_momentum_warmup_steps``."""
    if optim.muon_momentum_warmup_steps == 0:
        return optim.muon_momentum
    share = min(1.0, step / optim.muon_momentum_warmup_steps)
    return (1 - share) * optim.muon_momentum_warmup_start + share * optim.muon_momentum
