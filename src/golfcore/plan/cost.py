"""Predict the cost of a recipe: parameters, packed bytes with a spread, operations, memory of its state."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from golfcore.config import RecipeConfig
from golfcore.model import Family
from golfcore.model.roles import Kind
from golfcore.model.work import Work
from golfcore.optim.schedule import Stage, stage_at
from golfcore.quant import LARGEST_STEP, bits_and_clip, group_bytes
from golfcore.quant.fit import SMALLEST_STEP

# What trained rows take against the entropy of Gaussian ones, as (least, most): docs/results/compression.md. Columns
# of unlike scale and heavy tails make them cheaper; an embedding has means and signs besides; absmax and percentile
# clip where the row's largest value happens to lie: of 100 Gaussian ones at 2.7 standard deviations, with heavy tails
# far out.
AGAINST_GAUSSIAN: dict[Kind, tuple[float, float]] = {"matrix": (0.97, 1.005), "embedding": (0.92, 1.01)}
AGAINST_GAUSSIAN["head"] = AGAINST_GAUSSIAN["embedding"]
CLIP_SIGMAS = (6.0, 4.0, 2.7)  # cheapest, expected, dearest
SCALE_RANGE = {"log8": (0.2, 0.45), "fp16": (1.1, 1.4)}  # bytes per row
FP16_RANGE = (1.3, 2.0)  # bytes per parameter that is stored as fp16 and coded
FRAMING = (500, 1_500, 6_000)  # header, directory and checksums


@dataclass(frozen=True, slots=True)
class RoleCost:
    """The size of a group of parameters: their number, and the predicted packed bytes, from ``low`` to ``high``."""

    group: str
    kind: str
    params: int
    low: int
    expected: int
    high: int


@dataclass(frozen=True, slots=True)
class StageCost:
    """A stretch of the run: its share of the run, its batch, and the work per token in it."""

    share: float
    stage: Stage
    work: Work

    @property
    def flops(self) -> float:
        """Return the floating-point operations of one step, over all GPUs."""
        return self.work.flops * self.stage.batch_tokens


def role_costs(recipe: RecipeConfig, family: Family, vocab_size: int, step: float = 0.0) -> list[RoleCost]:
    """Return parameters and predicted bytes by group, computed from shapes; ``step`` is from ``fitted_step``."""
    quant, rows = recipe.quant, []
    for group, (kind, params, scales) in family.counts(recipe.model, vocab_size).items():
        expected = partial(group_bytes, group, kind, params, scales, quant, step=step)
        middle = expected(sigmas=CLIP_SIGMAS[1])
        if bits_and_clip(kind, quant, group)[0] == 0:
            low, high = (share * middle / FP16_RANGE[1] for share in FP16_RANGE)
        elif kind == "matrix" and quant.format != "int":
            low = high = middle
        else:
            least, most = AGAINST_GAUSSIAN[kind]
            scale_low, scale_high = (bytes_ * scales for bytes_ in SCALE_RANGE[quant.scales])
            low = least * expected(sigmas=CLIP_SIGMAS[0], row_bytes=0.0) + scale_low
            high = most * expected(sigmas=CLIP_SIGMAS[2], row_bytes=0.0) + scale_high
        rows.append(RoleCost(group, kind, params, round(low), round(middle), round(high)))
    return rows


def fitted_step(recipe: RecipeConfig, family: Family, vocab_size: int, overhead: Sequence[RoleCost]) -> float:
    """Return the step size, in standard deviations, at which the file fills its cap, as the mean of ``quant.fit``."""
    room = recipe.track.cap_bytes - recipe.quant.margin - sum(row.expected for row in overhead)
    low, high = SMALLEST_STEP, LARGEST_STEP
    for _ in range(30):
        step = math.sqrt(low * high)
        small = sum(row.expected for row in role_costs(recipe, family, vocab_size, step)) <= room
        low, high = (low, step) if small else (step, high)
    return high


def overhead_costs(family: Family, tokenizer: bytes | None, vocab_size: int) -> list[RoleCost]:
    """Predict the bytes of code, tokenizer and framing in the file.

    Args:
        family: the model family, whose sources the file carries.
        tokenizer: content of the tokenizer's file if it is at hand; empty for the contest's tokenizer, which is not
            counted; None if it is still to be trained.
        vocab_size: vocabulary of a tokenizer that is still to be trained.
    """
    import zstandard

    from golfcore.artifact.bundle import code_bundle

    def packed(data: bytes) -> int:
        return len(zstandard.ZstdCompressor(level=19).compress(data))

    code = packed(code_bundle(family))
    rows = [RoleCost("code", "code", 0, round(0.93 * code), code, round(1.01 * code))]
    if tokenizer is None:
        rows.append(RoleCost("tokenizer", "tokenizer", 0, 2 * vocab_size, 3 * vocab_size, 6 * vocab_size))
    elif tokenizer:
        size = packed(tokenizer)
        rows.append(RoleCost("tokenizer", "tokenizer", 0, round(0.9 * size), size, round(1.01 * size)))
    return [*rows, RoleCost("framing", "framing", 0, *FRAMING)]


def stage_costs(recipe: RecipeConfig, family: Family, vocab_size: int) -> list[StageCost]:
    """Return the stretches of the run, in order; batch, row length or the model's phase change between them."""
    train = recipe.train
    starts = [work.start for work in family.work(recipe.model, vocab_size, train.seq_len)][1:]
    turns = sorted({0.0, *train.batch_ramp_until, *train.seq_ramp_until, *starts})
    found = []
    for share, end in zip(turns, [*turns[1:], 1.0], strict=True):
        stage = stage_at(share, train, starts)
        work = family.work(recipe.model, vocab_size, stage.seq_len)[stage.phase]
        found.append(StageCost(end - share, stage, work))
    return found


def state_bytes(recipe: RecipeConfig, rows: list[RoleCost]) -> int:
    """Return the bytes of one process's weights, gradients and optimizer state, all fp32.

    Matrices have one moment, all other parameters two.
    """
    averaged = 4 if recipe.train.ema_decay or recipe.train.swa_start else 0
    return sum(row.params * ((12 if row.kind == "matrix" else 16) + averaged) for row in rows)
