"""Checks that the kernels are right, for tests, ``golfcore kernels test``, and the bench before it times.

A result may be off from the reference in fp64 by at most twice what plain torch in the same dtype is off; integers are
exact by the same rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from golfcore import _core, machine
from golfcore.errors import UsageError
from golfcore.ops import products
from golfcore.ops.cases.base import Case, Tensors, outputs, with_grads
from golfcore.ops.registry import HIGHEST_ISA, ISAS, set_schedule, using


@dataclass(frozen=True)
class Draw:
    """One set of arguments: its output gradients, the fp64 results, and the error of plain torch against those."""

    arguments: Tensors
    seeds: list[torch.Tensor]
    exact: list[torch.Tensor | None]
    plain: list[float]


@dataclass(frozen=True)
class Finding:
    """One result or gradient of one case, the worst over its draws. ``note`` is what no number says."""

    index: int
    ours: float
    plain: float
    floor: float
    note: str = ""

    @property
    def ok(self) -> bool:
        return self.within(1)

    def within(self, factor: float) -> bool:
        """Return whether the error is at most ``factor`` times the error that a kernel may have."""
        return not self.note and self.ours <= factor * (2 * self.plain + self.floor)

    def __str__(self) -> str:
        return f"result {self.index}: {self.note or f'off by {self.ours:.3g}, plain torch by {self.plain:.3g}'}"


def levels() -> tuple[str, ...]:
    """Return the instruction sets that can be used here, lowest first: the processor's, up to GOLF_ISA."""
    return ISAS[: ISAS.index(HIGHEST_ISA) + 1]


@contextmanager
def at_level(isa: str) -> Iterator[None]:
    """Hold native operations to at most this instruction set inside the block."""
    if isa not in levels():
        raise UsageError(f"{isa} cannot be used here, only {', '.join(levels())}")
    _core.set_isa(isa)
    try:
        yield
    finally:
        _core.set_isa(ISAS[-1])


def build(case: Case, dtype: torch.dtype, draw: int = 0, device: str = "cpu") -> Tensors:
    """Return the case's arguments; the same for the same ``draw``, on every device."""
    made = case.build(dtype, torch.Generator().manual_seed(1234 + draw))
    return {name: x.to(device) if isinstance(x, torch.Tensor) else x for name, x in made.items()}


def fp64(arguments: Tensors) -> Tensors:
    """Return the arguments with every floating-point tensor, and every dtype asked for, in fp64."""

    def wide(value: Any) -> Any:
        if isinstance(value, torch.dtype):
            return torch.float64
        return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value

    return {name: wide(value) for name, value in arguments.items()}


def output_gradients(case: Case, arguments: Tensors) -> list[torch.Tensor]:
    """Return what flows back into the case's outputs: normal numbers, rounded once to each output's dtype."""
    generator = torch.Generator().manual_seed(99)
    out = outputs(case.call(**arguments))
    return [torch.randn(o.shape, generator=generator).to(o.device, o.dtype) for o in out]


def error(x: torch.Tensor, exact: torch.Tensor) -> float:
    """Return the largest absolute difference; 0 for empty tensors."""
    return float((x.double() - exact).abs().max()) if x.numel() else 0.0


@lru_cache(maxsize=2)  # the instruction sets are tried on one case after another
def draws(case: Case, dtype: torch.dtype, device: str = "cpu") -> tuple[Draw, ...]:
    """Draw a case's arguments, several times if it is small: on a single one plain torch can be right by luck."""
    made = []
    for index in range(5):
        arguments = build(case, dtype, index, device)
        seeds = output_gradients(case, arguments)
        exact = with_grads(case.reference, case, fp64(arguments), seeds)
        plain = with_grads(case.plain, case, arguments, seeds)
        errors = [0.0 if e is None else error(p, e) for p, e in zip(plain, exact, strict=True)]
        made.append(Draw(arguments, seeds, exact, errors))
        if sum(seed.numel() for seed in seeds) > 10_000:
            break
    return tuple(made)


def parity(
    case: Case, dtype: torch.dtype, function: Callable[..., Any] | None = None, device: str = "cpu"
) -> list[Finding]:
    """Compare results and gradients of ``function`` (default: the case's own call) with the reference in fp64."""
    judged = draws(case, dtype, device)
    ours = [with_grads(function or case.call, case, draw.arguments, draw.seeds) for draw in judged]
    largest = max((float(e.abs().max()) for d in judged for e in d.exact if e is not None and e.numel()), default=0.0)
    return [
        _finding(
            i, [results[i] for results in ours], [d.exact[i] for d in judged], max(d.plain[i] for d in judged), largest
        )
        for i in range(len(judged[0].exact))
    ]


def _finding(
    index: int, results: list[torch.Tensor | None], exacts: list[torch.Tensor | None], plain: float, largest: float
) -> Finding:
    worst = scale = 0.0
    note = ""
    for result, exact in zip(results, exacts, strict=True):
        if exact is None:
            if result is not None and result.any():
                note = "has a gradient where the reference has none"
        elif result is None:
            note = "has no gradient where the reference has one"
        elif result.shape != exact.shape:
            note = f"has shape {tuple(result.shape)}, expected {tuple(exact.shape)}"
        elif not result.isfinite().all():
            note = "is not finite"
        else:
            worst = max(worst, error(result, exact))
            scale = max(scale, float(exact.abs().max()) if exact.numel() else 0.0)
    # A result that cancels to nothing is judged on the scale of what it is computed from.
    return Finding(index, worst, plain, 4 * torch.finfo(torch.float32).eps * (scale or largest), note)


@contextmanager
def on_simt(seed: int) -> Iterator[None]:
    """Run the GPU's kernels on the host inside the block; ``seed`` orders their blocks, warps and lanes.

    Memory that nobody has written holds NaN.
    """
    before, warn = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with using("simt"):
            set_schedule(seed, machine.threads())
            yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn)


def same_bits(a: list[torch.Tensor | None], b: list[torch.Tensor | None]) -> bool:
    """Return whether two lists of results and gradients are equal to the last bit."""
    return all(
        (x is None and y is None) or (x is not None and y is not None and torch.equal(x, y))
        for x, y in zip(a, b, strict=True)
    )


def promises_same_bits(case: Case, dtype: torch.dtype) -> bool:
    """Return whether nothing in the case may depend on the number of threads: torch's own fp32 products may."""
    return not (case.torch_products and torch.float32 in (dtype, products.fast_dtype()))


def same_for_any_threads(case: Case, dtype: torch.dtype) -> bool:
    """Return whether one, two and three threads give the same bits, forward and backward."""
    arguments = build(case, dtype)
    seeds = output_gradients(case, arguments)
    before = torch.get_num_threads()
    try:
        runs = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            runs.append(with_grads(case.call, case, arguments, seeds))
    finally:
        torch.set_num_threads(before)
    return all(same_bits(runs[0], other) for other in runs[1:])
