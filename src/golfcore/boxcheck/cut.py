"""Cut a recipe to a size at which a processor runs it in seconds, with the kinds of layers and phases that it has."""

from __future__ import annotations

import dataclasses
from typing import Any

from golfcore.config import RecipeConfig

ROW = 64  # tokens
MICRO_ROWS = 2


def cut_recipe(recipe: RecipeConfig, *, rows: int = 4, **train: Any) -> RecipeConfig:
    """Return the recipe without a clock, with at most four narrow layers and steps of ``rows`` rows.

    Args:
        recipe: a recipe of any family; of another one than ``gpt`` only the keys of the same names are cut.
        rows: rows of 64 tokens per step, over all ranks; a micro-batch has two.
        train: further keys of ``[train]``.
    """
    model = recipe.model
    small = {
        "num_layers": min(getattr(model, "num_layers", 4), 4), "model_dim": 128, "num_heads": 2, "num_kv_heads": 1,
        "rope_dims": getattr(model, "rope_dims", 0) and 16, "loop_layers": getattr(model, "loop_layers", "") and "1-2",
        "lanes_from": getattr(model, "lanes_from", 0) and 3, "max_segment": getattr(model, "max_segment", 0) and 16,
    }  # fmt: skip
    known = {entry.name for entry in dataclasses.fields(model)}
    sizes = {
        "batch_tokens": rows * ROW, "micro_batch_tokens": MICRO_ROWS * ROW, "seq_len": ROW, "compile": False,
        "warmup_steps": 0, "batch_ramp": (), "batch_ramp_until": (), "seq_ramp": (), "seq_ramp_until": (),
        "log_every": 10**6,
    }  # fmt: skip
    return dataclasses.replace(
        recipe,
        model=dataclasses.replace(model, **{key: value for key, value in small.items() if key in known}),
        track=dataclasses.replace(recipe.track, train_s=0.0),
        train=dataclasses.replace(recipe.train, **{**sizes, **train}),
    )
