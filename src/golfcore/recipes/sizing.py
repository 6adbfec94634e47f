"""Size the recipe pocket_frontier to this machine; ``golfcore run`` does so if no recipe is named.

Settings that help in 1,200 steps hurt in 100: a fast machine has time for large batches and low learning rates, a slow
one does not. The trainer's own step is timed for a few seconds. The number of steps that fit into the time limit
decides batch, vocabulary, learning rates, momentum warm-up and the span of the weights' average.
docs/results/sizing.md has the data behind the rule, and the cases that were not tried.
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
        """Return lines for the log: the predicted number of steps, and the keys that follow from it."""
        keys = " ".join(f"{key}={value}" for key, value in self.keys.items())
        return [f"sized: {self.steps} steps of {BASE} fit into the clock here, so {keys}"]


def size_for(steps: float) -> Size:
    """Return the size for a measured budget of ``steps`` steps of the base recipe."""
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
