"""Every native operation against its reference, over one table of cases."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pytest
import torch

from golfcore import _core
from golfcore.ops.cases import OP_CASES, Case
from golfcore.ops.cases.base import outputs, with_grads
from golfcore.ops.registry import ISAS, backends, leaves, using

CASES = [case for case in OP_CASES if not case.bench]
ROWS = [pytest.param(c, d, id=f"{c.id}-{str(d).removeprefix('torch.')}") for c in CASES for d in c.dtypes]
LEVEL_IDS = [f"{p.id}-{level}" for p in ROWS for level in ISAS]
SMALL = [pytest.param(c, id=c.id) for c in CASES if c.gradcheck]


@pytest.fixture
def isa() -> Iterator[Any]:
    yield _core.set_isa
    _core.set_isa(ISAS[-1])


@pytest.fixture
def threads() -> Iterator[Any]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def build(case: Case, dtype: torch.dtype, draw: int = 0) -> dict[str, Any]:
    return case.build(dtype, torch.Generator().manual_seed(1234 + draw))


def fp64(arguments: dict[str, Any]) -> dict[str, Any]:
    def wide(value: Any) -> Any:
        if isinstance(value, torch.dtype):
            return torch.float64
        return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value

    return {name: wide(value) for name, value in arguments.items()}


def seeds_for(case: Case, arguments: dict[str, Any]) -> list[torch.Tensor]:
    """Output gradients, the same for every function: rounded to each output's dtype once."""
    generator = torch.Generator().manual_seed(99)
    out = outputs(case.call(**arguments))
    return [torch.randn(o.shape, generator=generator).to(o.dtype) for o in out]


def error(x: torch.Tensor, exact: torch.Tensor) -> float:
    return (x.double() - exact).abs().max().item() if x.numel() else 0.0


@dataclass
class Judged:
    """One draw: arguments, output gradients, fp64 results, and the error of plain torch against those."""

    arguments: dict[str, Any]
    seeds: list[torch.Tensor]
    exact: list[torch.Tensor | None]
    plain: list[float]

    @property
    def largest(self) -> float:
        return max((e.abs().max().item() for e in self.exact if e is not None and e.numel()), default=0.0)


@lru_cache(maxsize=4)  # the levels of one row follow each other
def judged(case: Case, dtype: torch.dtype) -> list[Judged]:
    """Several draws where a case is small: on a single one plain torch can be right by luck."""
    draws = []
    for draw in range(5):
        arguments = build(case, dtype, draw)
        seeds = seeds_for(case, arguments)
        exact = with_grads(case.reference, case, fp64(arguments), seeds)
        plain = with_grads(case.plain, case, arguments, seeds)
        draws.append(
            Judged(
                arguments, seeds, exact, [0.0 if e is None else error(p, e) for p, e in zip(plain, exact, strict=True)]
            )
        )
        if sum(seed.numel() for seed in seeds) > 10_000:
            break
    return draws


@pytest.mark.parametrize(
    ("case", "dtype", "level"), [(*p.values, level) for p in ROWS for level in ISAS], ids=LEVEL_IDS
)
def test_results_and_gradients(case: Case, dtype: torch.dtype, level: str, isa: Any) -> None:
    if ISAS.index(level) > ISAS.index(_core.detected_isa()):
        pytest.skip(f"this processor has no {level}")
    isa(level)
    draws = judged(case, dtype)
    ours = [with_grads(case.call, case, draw.arguments, draw.seeds) for draw in draws]
    for i in range(len(draws[0].exact)):
        worst = scale = 0.0
        for draw, results in zip(draws, ours, strict=True):
            result, exact = results[i], draw.exact[i]
            if exact is None:
                assert result is None or not result.any()
                continue
            assert result.shape == exact.shape
            assert result.isfinite().all()
            worst = max(worst, error(result, exact))
            scale = max(scale, exact.abs().max().item() if exact.numel() else 0.0)
        plain = max(draw.plain[i] for draw in draws)
        # A result that cancels to nothing is judged on the scale of what it is computed from.
        floor = 4 * torch.finfo(torch.float32).eps * (scale or max(draw.largest for draw in draws))
        assert worst <= 2 * plain + floor, f"result {i}: off by {worst:.3g}, plain torch by {plain:.3g}"


@pytest.mark.parametrize(("case", "dtype"), ROWS)
def test_same_bits_for_any_number_of_threads(case: Case, dtype: torch.dtype, threads: Any) -> None:
    if case.torch_products and dtype == torch.float32:
        pytest.skip("torch's own fp32 products depend on the number of threads")
    arguments = build(case, dtype)
    seeds = seeds_for(case, arguments)
    threads(1)
    one = with_grads(case.call, case, arguments, seeds)
    threads(3)
    three = with_grads(case.call, case, arguments, seeds)
    for a, b in zip(one, three, strict=True):
        assert (a is None and b is None) or torch.equal(a, b)


@pytest.mark.parametrize("case", SMALL)
def test_reference_gradient(case: Case) -> None:
    arguments = fp64(build(case, torch.float32))
    taken = [arguments[name].requires_grad_() for name in case.grads]

    def function(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return outputs(case.reference(**{**arguments, **dict(zip(case.grads, values, strict=True))}))

    assert torch.autograd.gradcheck(function, taken)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("case", SMALL)
def test_leaves_pass_opcheck(case: Case, dtype: torch.dtype) -> None:
    """Records the leaves that forward and backward call, and puts each through torch's own checks."""
    from torch.utils._python_dispatch import TorchDispatchMode

    calls: dict[str, tuple[Any, Any, Any]] = {}

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func.namespace == "golf":
                calls[func.name()] = (func, args, kwargs or {})
            return func(*args, **(kwargs or {}))

    arguments = build(case, dtype)
    with Recorder():
        with_grads(case.call, case, arguments, seeds_for(case, arguments))
    assert calls
    for name, (func, args, kwargs) in calls.items():
        forward = not name.endswith("_backward")
        args = tuple(
            a.detach().clone().requires_grad_(forward and bool(case.grads) and a.is_floating_point())
            if isinstance(a, torch.Tensor) else a
            for a in args
        )  # fmt: skip
        torch.library.opcheck(func, args, kwargs)


@pytest.mark.parametrize("case", SMALL)
def test_compiles_without_a_graph_break(case: Case) -> None:
    arguments = build(case, torch.float32)
    seeds = seeds_for(case, arguments)
    torch._dynamo.reset()
    compiled = torch.compile(case.call, fullgraph=True, backend="aot_eager")
    for a, b in zip(
        with_grads(compiled, case, arguments, seeds), with_grads(case.call, case, arguments, seeds), strict=True
    ):
        assert (a is None and b is None) or torch.equal(a, b)


def test_every_operation_has_cases() -> None:
    named = {case.op for case in OP_CASES}
    assert named == set(leaves())
    assert len({case.id for case in OP_CASES}) == len(OP_CASES)
    assert {case.op for case in OP_CASES if case.bench} == named


def test_backends_name_what_serves() -> None:
    assert set(backends().values()) == {f"native {_core.active_isa()}"}
    with using("reference"):
        assert set(backends().values()) == {"reference"}


@pytest.mark.parametrize("level", ISAS)
def test_isa_can_only_be_lowered(level: str, isa: Any) -> None:
    isa(level)
    assert ISAS.index(_core.active_isa()) == min(ISAS.index(level), ISAS.index(_core.detected_isa()))


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("GOLF_ISA", "scalar", "native scalar"),
        ("GOLF_OPS", "reference", "reference"),
        ("GOLF_ISA", "sse9", "GOLF_ISA = 'sse9': expected one of scalar"),
        ("GOLF_OPS", "nativ", "GOLF_OPS = 'nativ': expected native or reference"),
    ],
)
def test_environment(name: str, value: str, expected: str) -> None:
    code = "import golfcore.ops as o; print(o.backends()['activation'])"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, name: value}, capture_output=True, text=True, check=False
    )
    assert expected in done.stdout + done.stderr
