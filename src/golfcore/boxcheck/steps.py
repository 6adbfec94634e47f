"""Time an all-reduce over the ranks, and training steps of the recipe against a reference.

Steps run as in a run: its batch, its phases by their shares, its compiler and graphs, on random tokens. On a processor
the recipe is cut to a size that ends in seconds; that shows that all parts work, and says nothing about time.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass

import torch

from golfcore.boxcheck.cut import cut_recipe
from golfcore.boxcheck.findings import Failed, Found, NotHere
from golfcore.config import RecipeConfig
from golfcore.model import get_family
from golfcore.ops.attention_backends import fa3_is_installed
from golfcore.pipeline.measure import RandomTokens
from golfcore.pipeline.setup import build_trainer
from golfcore.plan.cost import role_costs, stage_costs
from golfcore.plan.scaling import NODE, NVLINK_BYTES_S, orthogonal_flops, simulate
from golfcore.ranks.rendezvous import Place
from golfcore.ranks.world import World
from golfcore.training.runlog import KeptLog

REDUCED_BYTES = {"cuda": 256 << 20, "cpu": 8 << 20}
REDUCTIONS = 10
LEAST_LINK = 0.5  # of the rate that the plan assumes for NVLink; without it H100s reach a tenth (assumed)
PREDICTED_FOR = ("H100", "H200")  # the GPUs that the plan's model of time was fitted on, and their sisters
GIVEN_MARGIN = 1.1  # how many times the user's reference a step may take
FAR_TOO_LONG = 2.0  # a step of the warm-up that takes this many times the limit ends the check at once


@dataclass(frozen=True, slots=True)
class Reference:
    """The milliseconds that a step should take, the most that pass, and where they come from."""

    ms: float
    limit_ms: float
    source: str


def check_links(world: World, place: Place) -> Found:
    """Sum a buffer over all ranks and compare the bandwidth with NVLink's."""
    if world.size == 1:
        raise NotHere("one rank alone: start this under torchrun, with a rank for each GPU")
    device = world.device
    buffer = torch.ones(REDUCED_BYTES[device.type] // 4, device=device)
    world.all_reduce(buffer)()
    if not bool((buffer == world.size).all()):
        raise Failed(f"a sum of ones over {world.size} ranks is {float(buffer[0]):g}", "take another machine")
    buffer.zero_()
    world.synchronize()
    start = time.perf_counter()
    for _ in range(REDUCTIONS):
        world.all_reduce(buffer)()
    world.synchronize()
    (seconds,) = world.largest((time.perf_counter() - start) / REDUCTIONS)
    rate = 2 * (world.size - 1) / world.size * 4 * buffer.numel() / seconds
    size = f"{4 * buffer.numel() / 2**20:.0f} MiB"
    text = f"{size} over {world.size} ranks in {1e3 * seconds:.2f} ms, {rate / 1e9:,.1f} GB/s"
    values = {"bytes_s": rate}
    if device.type != "cuda":
        return Found(f"{text} by gloo", values, "NCCL")
    if not _predicted(device) or place.local_size < world.size:
        return Found(text, values, "the rate, for which there is no reference here")
    least = LEAST_LINK * NVLINK_BYTES_S
    if rate < least:
        raise Failed(
            f"{text}, expected {least / 1e9:.0f} at least",
            "nvidia-smi topo -m and NCCL_DEBUG=INFO show the links; take a machine with NVLink between all GPUs",
        )
    return Found(text, values)


def _predicted(device: torch.device) -> bool:
    return any(name in torch.cuda.get_device_name(device) for name in PREDICTED_FOR)


def reference(recipe: RecipeConfig, world: World, vocab_size: int, given_ms: float) -> Reference | None:
    """Return the user's reference or the plan's prediction for these GPUs; None if there is neither."""
    if given_ms:
        return Reference(given_ms, GIVEN_MARGIN * given_ms, "given")
    if world.device.type != "cuda" or not _predicted(world.device) or world.size > NODE:
        return None
    return predicted(recipe, world.size, vocab_size, fa3=fa3_is_installed())


def predicted(recipe: RecipeConfig, gpus: int, vocab_size: int, *, fa3: bool) -> Reference | None:
    """Return the plan's milliseconds per step on H100s, over the recipe's phases by their shares; None if it has none.

    The limit is the end of the prediction's range, in which nine in ten of the logs stay that the model has not seen.
    """
    family = get_family(recipe.model_family)
    roles = role_costs(recipe, family, vocab_size)
    matrices = sum(row.params for row in roles if row.kind == "matrix")
    total, spread = 0.0, 0.0
    for stage in stage_costs(recipe, family, vocab_size):
        width = stage.work.residual // max(1, stage.work.passes)
        scale = simulate(
            stage, gpus, params=sum(row.params for row in roles), attention="fa3" if fa3 else "sdpa",
            micro_tokens=recipe.train.micro_batch_tokens,
            orthogonal=orthogonal_flops(matrices, width, recipe.optim.muon_backend_steps),
        )  # fmt: skip
        if scale is None:
            return None
        total, spread = total + stage.share * scale.ms, scale.spread
    return Reference(total, total / (1 - spread), f"predicted for {gpus} H100s by the plan, not measured")


def check_steps(recipe: RecipeConfig, world: World, vocab_size: int, steps: int, given_ms: float) -> Found:
    """Run ``steps`` steps after the recipe's warm-up, and compare their mean with the reference."""
    expected = reference(recipe, world, vocab_size, given_ms)
    on_cpu = world.device.type == "cpu"
    if on_cpu:
        timed, what = cut_recipe(recipe, rows=2 * world.size, warmup_steps=1, require_gpu=False), "a cut recipe"
    else:
        timed, what = recipe, f"{recipe.train.batch_tokens:,} tokens each"
    train = dataclasses.replace(timed.train, iterations=steps, val_every=0, checkpoint_every_s=0.0, log_every=10**6)
    timed = dataclasses.replace(timed, train=train, track=dataclasses.replace(timed.track, train_s=0.0))
    log = KeptLog()
    loader = RandomTokens(vocab_size, train.batch_tokens, train.seq_len, world.size)
    with build_trainer(timed, vocab_size, loader, world, log) as trainer:
        if broken := next((line for line in log.lines if "torch.compile failed" in line), ""):
            raise Failed(broken, "see the check of the compiler; train.compile=false leaves it out, and is slower")
        trainer.warm_up()
        (longest,) = world.largest(1e3 * trainer.expected_step_s)
        if expected is not None and longest > FAR_TOO_LONG * expected.limit_ms:
            raise Failed(_compared(longest, expected, "a step of the warm-up took"), "take another machine")
        state = trainer.run()
    (ms,) = world.largest(1e3 * state.train_s / steps)
    values = {"ms": ms, **({} if expected is None else {"reference_ms": expected.ms, "limit_ms": expected.limit_ms})}
    text = f"{steps} steps of {what} on {world.size} {'CPU rank' if on_cpu else 'GPU'}{'s' * (world.size > 1)}"
    if expected is None:
        return Found(f"{text}, {ms:,.1f} ms each", values, "the time, for which there is no reference here")
    if ms > expected.limit_ms:
        raise Failed(
            _compared(ms, expected, f"{text} took"),
            "take another machine, or see what slows it: golfcore doctor, golfcore bench --device cuda",
        )
    return Found(_compared(ms, expected, text), values)


def _compared(ms: float, expected: Reference, text: str) -> str:
    return f"{text} {ms:,.1f} ms each, {expected.ms:,.1f} {expected.source}, {expected.limit_ms:,.1f} at most"
