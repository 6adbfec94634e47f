"""The recipe that ``golfcore run`` takes when none is named: pocket_frontier, sized to the machine at hand.

What helps in 1,200 steps hurts in 100: a fast machine has time for large batches and low rates, a slow one does not.
The trainer's own step is measured for a few seconds; what the clock allows decides batch, vocabulary, rates, momentum
warm-up and the span of the weights' average. docs/results/sizing.md has the rule's data and what of it was not tried.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from golfcore.recipes import load_recipe

AUTO = "auto"  # the name of the sized recipe
BASE = "pocket_frontier"
FEW = 450.0  # steps of the base below which twice as many of half the batch, and a smaller table, are better
BOUNDS = (60.0, 1500.0)  # steps of the base beyond which the rule changes nothing more


@dataclass(frozen=True)
class Size:
    """Keys of a recipe for a machine that has time for ``steps`` steps of the base recipe."""

    steps: int
    keys: Mapping[str, Any]

    def lines(self) -> list[str]:
        """For the log: what was predicted, and what follows."""
        keys = " ".join(f"{key}={value}" for key, value in self.keys.items())
        return [f"sized: {self.steps} steps of {BASE} fit into the clock here, so {keys}"]


def size_for(steps: float) -> Size:
    """The keys for a budget of ``steps`` steps of the base recipe, as measured."""
    base = load_recipe(BASE, environment={}).config
    bounded = min(max(steps, BOUNDS[0]), BOUNDS[1])
    few = bounded < FEW
    batch = 2048 if few else 4096
    taken = bounded * base.train.batch_tokens / batch  # about so many steps will be run
    rate = round(min(1.5, max(1.0, math.sqrt(600 / bounded))), 2)
    keys: dict[str, Any] = {
        "model.skips": "none",
        "data.vocab_size": 4096 if few else 6144,
        "train.batch_tokens": batch,
        "train.micro_batch_tokens": batch,
        "train.ema_decay": round(1 - 1 / max(2.0, 0.04 * taken), 4),
        "optim.muon_momentum_warmup_steps": min(50, round(taken / 6)),
    }
    for name in ("matrix_lr", "tied_embed_lr", "scalar_lr"):
        keys[f"optim.{name}"] = round(rate * getattr(base.optim, name), 5)
    return Size(round(steps), keys)
