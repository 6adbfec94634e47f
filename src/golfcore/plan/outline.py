"""Make the whole plan of a recipe as values that JSON can hold; each part is counted, measured, fitted or simulated."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from golfcore.config import RecipeConfig
from golfcore.model import get_family
from golfcore.pipeline.measure import Measured, measure_step
from golfcore.plan.cost import RoleCost, StageCost, fitted_step, overhead_costs, role_costs, stage_costs, state_bytes
from golfcore.plan.evidence import Attention
from golfcore.plan.scaling import COUNTS, ENOUGH, Scale, orthogonal_flops, scaling_end, simulate
from golfcore.plan.timing import H100_FLOPS, MIB, memory_model, memory_terms

COUNTED, MEASURED, FITTED, SIMULATED = "counted", "measured", "fitted", "simulated"
# What the evidence spans: beyond it the time model extrapolates, and the plan says so.
SEEN = {
    "model width": (512, 512), "layers run": (9, 17), "attention window": (1024, 4096),
    "tokens per GPU": (49_152, 262_144), "vocabulary": (1024, 8192),
}  # fmt: skip


def make_plan(
    recipe: RecipeConfig,
    *,
    gpus: int = 0,
    price: float | None = None,
    attention: Attention = "sdpa",
    seconds: float = 5.0,
    vocab_size: int = 0,
    tokenizer: bytes | None = None,
) -> dict[str, Any]:
    """Make the plan of a run.

    Args:
        recipe: the recipe that would be run.
        gpus: number of H100s to predict for; 0 measures this machine instead.
        price: dollars per GPU-hour.
        attention: the attention kernel that is assumed on H100s.
        seconds: seconds of measuring.
        vocab_size: vocabulary of the tokens if they are at hand; 0: ``data.vocab_size``.
        tokenizer: as for ``overhead_costs``.
    """
    family = get_family(recipe.model_family)
    vocab_size = vocab_size or recipe.data.vocab_size
    overhead = overhead_costs(family, tokenizer, vocab_size)
    step = fitted_step(recipe, family, vocab_size, overhead) if recipe.quant.fit else 0.0
    roles = role_costs(recipe, family, vocab_size, step)
    stages = stage_costs(recipe, family, vocab_size)
    params = sum(row.params for row in roles)
    plan: dict[str, Any] = {
        "recipe": recipe.name,
        "family": recipe.model_family,
        "vocab_size": vocab_size,
        "parameters": {"basis": COUNTED, "total": params, "by_kind": _by_kind(roles)},
        "artifact": _artifact(recipe, roles, overhead, step),
        "operations": {
            "basis": COUNTED,
            "stages": [
                {
                    "share": stage.share, "batch_tokens": stage.stage.batch_tokens, "seq_len": stage.stage.seq_len,
                    "layers_run": stage.work.passes, "flops_a_token": stage.work.flops, "flops_a_step": stage.flops,
                }
                for stage in stages
            ],
        },
        "state": {"basis": COUNTED, "bytes": state_bytes(recipe, roles)},
        "notes": [],
    }  # fmt: skip
    if gpus:
        matrices = sum(row.params for row in roles if row.kind == "matrix")
        _add_gpus(plan, recipe, stages, params, matrices, gpus, price, attention)
    else:
        _add_measured(plan, recipe, stages, measure_step(recipe, vocab_size, seconds), price)
    return plan


def _by_kind(roles: Sequence[RoleCost]) -> dict[str, int]:
    kinds = dict.fromkeys(row.kind for row in roles)
    return {kind: sum(row.params for row in roles if row.kind == kind) for kind in kinds}


def _artifact(recipe: RecipeConfig, roles: list[RoleCost], overhead: list[RoleCost], step: float) -> dict[str, Any]:
    rows = [*roles, *overhead]
    low, expected, high = (sum(getattr(row, key) for row in rows) for key in ("low", "expected", "high"))
    cap = recipe.track.cap_bytes
    if expected <= cap and recipe.quant.fit:  # the search stops below the cap, whatever a tensor takes
        low, high = min(low, cap), min(high, cap)
    return {
        "basis": COUNTED, "roles": [dataclasses.asdict(row) for row in rows], "low": low, "expected": expected,
        "high": high, "step": step, "cap": cap, "fits": "yes" if high <= cap else "no" if low > cap else "perhaps",
    }  # fmt: skip


def _clock(recipe: RecipeConfig, stages: Sequence[StageCost], times_ms: Sequence[float]) -> dict[str, Any]:
    """Return steps, tokens, seconds and operations of a run whose stages take ``times_ms`` per step."""
    train, budget = recipe.train, recipe.steps_s
    if budget:
        steps = [stage.share * budget * 1e3 / ms for stage, ms in zip(stages, times_ms, strict=True)]
        whole = min(1.0, train.iterations / sum(steps))
        steps = [count * whole for count in steps]
    else:
        steps = [stage.share * train.iterations for stage in stages]
    return {
        "steps": round(sum(steps)),
        "seconds": sum(count * ms for count, ms in zip(steps, times_ms, strict=True)) / 1e3,
        "tokens": round(sum(count * stage.stage.batch_tokens for count, stage in zip(steps, stages, strict=True))),
        "flops": sum(count * stage.flops for count, stage in zip(steps, stages, strict=True)),
    }


def _add_measured(
    plan: dict[str, Any], recipe: RecipeConfig, stages: list[StageCost], found: Measured, price: float | None
) -> None:
    first = stages[0].flops
    times = [found.ms * stage.flops / first for stage in stages]
    clock = _clock(recipe, stages, times)
    plan["run"] = {
        "basis": MEASURED, "device": found.device, "gpus": 1, "precision": found.precision, "timed_steps": found.steps,
        "ms_a_step": clock["seconds"] * 1e3 / clock["steps"] if clock["steps"] else times[0], **clock,
        "mfu": clock["flops"] / (clock["seconds"] * found.peak_flops) if clock["seconds"] else None,
        "peak_flops": found.peak_flops, "memory_bytes": found.memory_bytes, "memory_basis": MEASURED,
        "dollars": None if price is None else price * clock["seconds"] / 3600,
    }  # fmt: skip
    if found.tokens < stages[0].stage.batch_tokens:
        plan["notes"].append(
            f"timed on steps of up to {found.tokens:,} of {stages[0].stage.batch_tokens:,} tokens; the rest is a line"
        )
    if len(stages) > 1:
        plan["notes"].append("timed on the run's first stage; the others by their operations")
    if recipe.train.compile and found.device.endswith("CPU"):
        plan["notes"].append("timed without torch.compile")
    plan["notes"].append("MFU is against plain products of 1,024 x 1,024 matrices on this machine")


def _add_gpus(
    plan: dict[str, Any], recipe: RecipeConfig, stages: list[StageCost], params: int, matrices: int, gpus: int,
    price: float | None, attention: Attention,
) -> None:  # fmt: skip
    rows = []
    for count in sorted({*COUNTS, gpus}):
        scales = [
            simulate(
                stage, count, params=params, attention=attention, micro_tokens=recipe.train.micro_batch_tokens,
                orthogonal=orthogonal_flops(
                    matrices, stage.work.residual // max(1, stage.work.passes), recipe.optim.muon_backend_steps
                ),
            )
            for stage in stages
        ]  # fmt: skip
        whole = [scale for scale in scales if scale is not None]
        if len(whole) == len(stages):
            rows.append(_gpu_row(recipe, stages, whole, params, count, price))
    doublings = [(row["gpus"], row["ms_a_step"]) for row in rows if row["gpus"] in COUNTS]
    end = scaling_end(doublings)
    why = "speed" if end < doublings[-1][0] else "rows" if end < COUNTS[-1] else "open"
    plan["scaling"] = {
        "basis": SIMULATED, "attention": attention, "rows": rows, "enough": ENOUGH, "ends_at": end, "ends_by": why,
    }  # fmt: skip
    chosen = next((row for row in rows if row["gpus"] == gpus), None)
    if chosen is None:
        plan["notes"].append(
            f"a batch of {recipe.train.batch_tokens:,} tokens in rows of {recipe.train.seq_len:,} does not split over "
            f"{gpus} GPUs"
        )
    else:
        plan["run"] = {**chosen, "device": "H100", "basis": FITTED if gpus == 8 else SIMULATED}
    plan["notes"] += _beyond(recipe, stages, plan["vocab_size"], gpus)
    plan["notes"].append("H100 figures are those of PyTorch entries of the contest; golfcore was not timed on one")


def _gpu_row(
    recipe: RecipeConfig, stages: list[StageCost], scales: list[Scale], params: int, gpus: int, price: float | None
) -> dict[str, Any]:
    clock = _clock(recipe, stages, [scale.ms for scale in scales])
    ms = clock["seconds"] * 1e3 / clock["steps"] if clock["steps"] else scales[0].ms
    deepest, spread = max(stages, key=lambda stage: stage.work.passes), scales[0].spread
    micro = min(recipe.train.micro_batch_tokens, deepest.stage.batch_tokens / gpus)
    memory = memory_model()

    # Steps of each stage: under a clock a stage's share is of time, without one of steps.
    counts = [
        stage.share / (scale.ms if recipe.track.train_s else 1) for scale, stage in zip(scales, stages, strict=True)
    ]

    def mean(part: str) -> float:
        """Return the mean of a part of a step's time over all steps of the run."""
        return float(np.average([getattr(scale, part) for scale in scales], weights=counts))

    return {
        "gpus": gpus, "ms_a_step": ms, "ms_low": ms / (1 + spread), "ms_high": ms / (1 - spread), **clock,
        "compute_ms": mean("compute_ms"), "collective_ms": mean("collective_ms"), "exposed_ms": mean("exposed_ms"),
        "optimiser_ms": mean("orthogonal_ms"), "constant_ms": mean("constant_ms"),
        "mfu": clock["flops"] / (clock["seconds"] * gpus * H100_FLOPS) if clock["seconds"] else None,
        "peak_flops": H100_FLOPS, "memory_basis": FITTED,
        "memory_bytes": round(memory(memory_terms(params, deepest.work, micro)) * MIB), "memory_spread": memory.spread,
        "dollars": None if price is None else price * gpus * clock["seconds"] / 3600,
    }  # fmt: skip


def _beyond(recipe: RecipeConfig, stages: list[StageCost], vocab_size: int, gpus: int) -> list[str]:
    """Return the properties of the recipe that no logged entry has: there the time model extrapolates."""
    work = stages[-1].work
    values = {
        "model width": work.residual // max(1, work.passes), "layers run": work.passes,
        "attention window": round(work.attention / max(1, work.residual)),
        "tokens per GPU": recipe.train.batch_tokens // gpus, "vocabulary": vocab_size,
    }  # fmt: skip
    return [
        f"{name} {value:,}: the contest's logs have {'only ' if low == high else ''}{_span(low, high)}, the time model "
        "extrapolates"
        for name, value in values.items()
        for low, high in [SEEN[name]]
        if not low <= value <= high
    ]


def _span(low: int, high: int) -> str:
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
