"""Quantize a trained model: golfcore's own quantizers, with rounding in place of the trellis."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from golfcore.artifact.model_io import StoredTensor
from golfcore.data.shards import ShardSet
from golfcore.export.runtime.ranks import World
from golfcore.model.interface import LanguageModel
from golfcore.quant.calibrate import TrainingRows, generated_rows, training_rows
from golfcore.quant.fit import Fitter
from golfcore.quant.hessian import Hessians, collect_hessians
from golfcore.quant.measure import Probe, weights_on_cpu
from golfcore.quant.state import quantize_state

PROBE_TOKENS = 4096


def calibrate(
    model: LanguageModel, recipe: Any, shards: ShardSet, world: World, left: Callable[[], float]
) -> Hessians | None:  # fmt: skip
    """Collect the Hessians of all layers over all ranks; None if the method needs none."""
    quant = recipe.quant
    if quant.method != "gptq":
        return None
    batch_tokens = (recipe.eval.batch_tokens or 8192) // 2
    if quant.calibration == "train":
        rows: Any = TrainingRows(
            shards, quant.calibration_tokens, recipe.train.seq_len, rank=world.rank, world=world.size
        )
    else:
        length = min(recipe.train.seq_len, recipe.eval.context or recipe.train.seq_len)
        rows = generated_rows(model, quant.calibration_tokens, length, seed=recipe.train.seed)
        rows, left = rows[world.rank :: world.size], lambda: math.inf
    return collect_hessians(model, rows, batch_tokens=batch_tokens, ranks=world, left=left)


def quantize(
    model: LanguageModel, recipe: Any, shards: ShardSet, hessians: Hessians | None,
    size: Callable[[list[StoredTensor]], int], cap: int,
) -> list[StoredTensor]:  # fmt: skip
    """Return the quantized weights; with ``quant.fit`` they fill ``cap`` bytes, as ``size`` counts them."""
    quant = dataclasses.replace(recipe.quant, states=0)
    if hessians is not None and quant.fit:
        length = min(recipe.train.seq_len, recipe.eval.context or recipe.train.seq_len)
        probe = Probe(model, training_rows(shards, PROBE_TOKENS, length))
        return Fitter(model, quant, hessians, probe, size).fit(cap)[1]
    return quantize_state(weights_on_cpu(model), model.parameter_roles(), quant, hessians)
