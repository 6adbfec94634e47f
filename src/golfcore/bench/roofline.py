"""Predict a training step on an H100 on paper: a floor and an expected time for every operation.

A floor is the largest of an operation's times at the data sheet's rates (``golfcore.gpu_specs``), one per resource;
that resource is its limiter. The prediction takes the share of each rate that kernels usually reach (``REACHED``), or
the rate that published kernels of the same kind have, adds the time of the launches, and adds up all operations, since
one follows another. Nothing of this was measured; ``ASSUMPTIONS`` says what is assumed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from golfcore.bench.operations import QK_INSTRUCTIONS, TILE, Work, bitpack
from golfcore.bench.segments import DOCUMENT_SPREAD, DOCUMENT_TOKENS, FLASH2, FLASH3
from golfcore.bench.step_work import DRAIN_S, TODAY, Shape, Ways, shape_of, step_work
from golfcore.config import RecipeConfig
from golfcore.gpu_specs import H100, Gpu
from golfcore.ops import cubin
from golfcore.plan.scaling import NVLINK_BYTES_S

# The share of each rate that kernels usually reach: assumed, from others' measurements. cuBLAS in bf16 reaches 600 to
# 650 TFLOP/s in products of this size; plain copies 0.88 to 0.93. "mma" stands for what has no published rate.
REACHED = {
    "memory": 0.88, "products": 0.62, "mma": 0.43, "fp32": 0.70, "special": 0.80, "issue": 0.70, "link": 1.0,
    "host": 1.0,
}  # fmt: skip
LAUNCH_US = 1.0  # between the end of a kernel and the beginning of the next one that was queued behind it
RAMP_US = 3.0  # of a product that lasts a few microseconds: its first loads and last stores, which nothing hides
# Milliseconds a step of the contest's best entry (PR 1855, seed 42), by layers run: before and after its loops begin.
LOGGED_MS = {11: 96.3, 17: 140.9}

# What was mended, in that order; each line takes all before it for granted.
AS_FOUND = Ways(compiled=False, waits=True, chunk_logits=1 << 24, adds_inside=False, narrow=False)
MENDS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("the loss is one graph a phase under torch.compile", {"compiled": True}),
    ("no step waits for the GPU", {"waits": False}),
    ("head: weight gradients added up inside their product", {"adds_inside": True}),
    ("head: chunks of twice as many tokens", {"chunk_logits": 1 << 25}),
    ("q and k: 32-bit arithmetic, a head in registers", {"narrow": True}),
    ("FlashAttention-3, where it is installed", {"flash3": True}),
)

ASSUMPTIONS = (
    f"data sheet of an {H100.name}: {H100.bytes_s / 1e12:.2f} TB/s, {H100.bf16_flops / 1e12:.1f} TFLOP/s bf16, "
    f"{H100.mma_share:.2f} of it by mma.sync (arXiv:2402.13499), {NVLINK_BYTES_S / 1e9:.0f} GB/s of NVLink a direction",
    "shares that are reached: " + ", ".join(f"{name} {share}" for name, share in REACHED.items() if share < 1),
    "attention at FlashAttention-2's rates at head size 64 (arXiv:2407.08608), causal: "
    + ", ".join(f"{rate:.0f} TFLOP/s at {at}" for at, rate in FLASH2.causal.items())
    + f"; backward {FLASH2.full_backward / FLASH2.full:.2f} of them, for seven products instead of five",
    "FlashAttention-3: "
    + ", ".join(f"{rate:.0f} at {at}" for at, rate in FLASH3.causal.items())
    + f"; backward {FLASH3.full_backward / FLASH3.full:.2f} of them; XSA and gate by a pass of torch behind it",
    f"documents of log-normal lengths, {DOCUMENT_TOKENS} tokens on average, spread {DOCUMENT_SPREAD}, cut at "
    "max_segment",
    f"q and k issue {QK_INSTRUCTIONS[0]:.0f} and {QK_INSTRUCTIONS[1]:.0f} instructions for 256 numbers, counted in "
    "machine code",
    f"a product keeps busy the multiprocessors that have a tile of {TILE} x {TILE}; one inside the optimizer takes "
    f"{RAMP_US:.0f} us more",
    f"{LAUNCH_US:.0f} us for each launch; where a step waits for the GPU, {1e3 * DRAIN_S:.1f} ms",
    "one operation after another, collectives included; the slowest rank's share of the optimizer",
)  # what the predictions take for granted; docs/results/roofline.md says more


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """The floor of one operation in a step, in microseconds.

    Attributes:
        work: the work of the operation.
        times: time of one call at the full rate of each resource that it uses.
        limiter: the resource with the longest time.
        floor_us, predicted_us: time of one call at full rates, and at the rates that are usually reached.
        instances: the kernels behind the instruction estimate; empty if there is none.
    """

    work: Work
    times: Mapping[str, float]
    limiter: str
    floor_us: float
    predicted_us: float
    instances: tuple[str, ...] = ()

    @property
    def step_us(self) -> float:
        return self.work.calls * self.floor_us

    @property
    def predicted_step_us(self) -> float:
        return self.work.calls * self.predicted_us


def times_of(work: Work, gpu: Gpu = H100, instructions: float = 0.0) -> dict[str, float]:
    """Return the microseconds of one call on each resource at full rate; ``instructions`` are those of all warps."""
    rates = {
        "memory": (work.read + work.written, gpu.bytes_s),
        "products": (work.products, gpu.bf16_flops),
        "mma": (work.mma, gpu.bf16_flops * gpu.mma_share),
        "fp32": (work.fp32, gpu.fp32_flops),
        "special": (work.special, gpu.special_rate),
        "issue": (instructions, gpu.issue_rate),
        "link": (work.link, NVLINK_BYTES_S),
        "host": (work.waited_s, 1.0),
    }
    return {name: 1e6 * amount / rate for name, (amount, rate) in rates.items() if amount}


def floor_of(work: Work, gpu: Gpu = H100, kernels: Sequence[cubin.Kernel] = ()) -> Floor:
    """Return the floor of one operation; ``kernels`` are those that serve it, for the instruction estimate."""
    times = times_of(work, gpu, work.issued or instructions_of(work, kernels))
    limiter = max(times, key=lambda name: times[name])
    reached = {name: value / REACHED[name] for name, value in times.items()}
    for name, flops in (("products", work.products), ("mma", work.mma)):
        if name in reached:
            reached[name] = 1e6 * flops / work.flops_s if work.flops_s else reached[name] / work.fill
    launched_us = work.launches * LAUNCH_US + work.ramps * RAMP_US
    return Floor(
        work=work, times=times, limiter=limiter, floor_us=times[limiter],
        predicted_us=max(reached.values()) + launched_us,
        instances=tuple(kernel.name for kernel in kernels) if "issue" in times and not work.issued else (),
    )  # fmt: skip


def instructions_of(work: Work, kernels: Sequence[cubin.Kernel]) -> float:
    """Return the warp instructions of the whole call, estimated from the loops that do the work; 0 if unknown.

    A loop's instructions, without those that rarely run (``cubin.usual``), are divided by its work per pass, in flops
    on the tensor cores or in bytes of global memory, and multiplied by the work of the operation; in a kernel without
    loops all its code counts. Of several kernels the longest work counts: the rest finish sums. Optional terms of a
    kernel are in its loop, on both sides of that division.
    """
    estimates = []
    for kernel in kernels:
        code = cubin.usual(kernel.loop) or kernel.code
        flops, moved = cubin.tensor_flops(code), cubin.moved(code)
        if work.mma and flops:
            estimates.append(len(code) * work.mma / flops)
        elif not work.mma and not flops and moved:
            estimates.append(len(code) * (work.read + work.written + work.cached) / moved)
    return max(estimates, default=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step in one phase of a run: all operations, and sums in milliseconds beside the logged time."""

    passes: int
    floors: tuple[Floor, ...]
    logged_ms: float | None

    @property
    def floor_ms(self) -> float:
        return sum(f.step_us for f in self.floors) / 1e3

    @property
    def predicted_ms(self) -> float:
        return sum(f.predicted_step_us for f in self.floors) / 1e3

    def share(self, op: str) -> float:
        """Return the predicted milliseconds of an operation."""
        return sum(f.predicted_step_us for f in self.floors if f.work.op == op) / 1e3


def predict(
    recipe: RecipeConfig, kernels: Mapping[str, Sequence[cubin.Kernel]] | None = None, ways: Ways = TODAY
) -> list[Step]:
    """Predict a recipe's steps on eight H100s: before its depth recurrence begins, and when all of it runs.

    Args:
        recipe: a recipe of a GPT.
        kernels: the kernels of each operation, by its name, for the estimate of instructions.
        ways: how the step does its work.
    """
    steps = []
    for phase in sorted({0, len(recipe.model.loop_starts)}):
        shape = shape_of(recipe, phase)
        floors = tuple(floor_of(w, H100, (kernels or {}).get(w.name, ())) for w in step_work(shape, ways))
        passes = len(shape.order)
        logged = LOGGED_MS.get(passes) if recipe.name == "frontier_8xh100" else None
        steps.append(Step(passes=passes, floors=floors, logged_ms=logged))
    return steps


@dataclass(frozen=True, slots=True)
class Mend:
    """A change of the code, and the milliseconds of a step with it and all changes before it, by layers run."""

    what: str
    ms: Mapping[int, float]


def mends(recipe: RecipeConfig, kernels: Mapping[str, Sequence[cubin.Kernel]] | None = None) -> list[Mend]:
    """Return the predicted steps of ``recipe`` as an audit found the code, then with each of ``MENDS`` in turn.

    The arguments are those of ``predict``.
    """
    ways, found = AS_FOUND, []
    for what, change in (("as the audit found it", {}), *MENDS):
        ways = replace(ways, **change)
        found.append(Mend(what, {step.passes: step.predicted_ms for step in predict(recipe, kernels, ways)}))
    return found


def packed_floors(shape: Shape, kernels: Mapping[str, Sequence[cubin.Kernel]] | None = None) -> list[Floor]:
    """Return the floors of the quantized operations, which no step has, on a layer's widest matrix in six bits."""
    return [floor_of(w, H100, (kernels or {}).get(w.name, ())) for w in bitpack(shape.hidden, shape.d, bits=6)]


def document(steps: Sequence[Step], packed: Sequence[Floor], changes: Sequence[Mend]) -> dict[str, Any]:
    """Return all predictions as JSON values."""

    def row(f: Floor) -> dict[str, Any]:
        return asdict(f.work) | {
            "limiter": f.limiter, "floor_us": f.floor_us, "predicted_us": f.predicted_us, "times_us": dict(f.times),
            "instruction_estimate_from": list(f.instances),
        }  # fmt: skip

    return {
        "device": asdict(H100), "reached": REACHED,
        "steps": [
            {
                "layers_run": s.passes, "floor_ms": s.floor_ms, "predicted_ms": s.predicted_ms,
                "logged_ms": s.logged_ms, "operations": [row(f) for f in s.floors],
            }
            for s in steps
        ],
        "mends": [{"what": mend.what, "predicted_ms": {str(n): ms for n, ms in mend.ms.items()}} for mend in changes],
        "packed": [row(f) for f in packed], "assumptions": list(ASSUMPTIONS),
        "basis": "a model on paper; nothing was measured on a GPU",
    }  # fmt: skip
