"""Every native operation against its reference, over one table of cases."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from golfcore import _core
from golfcore.ops.cases import OP_CASES, Case
from golfcore.ops.cases.base import outputs, with_grads
from golfcore.ops.registry import ISAS, backends, leaves, using

CASES = [case for case in OP_CASES if not case.bench]
ROWS = [pytest.param(c, d, id=f"{c.id}-{str(d).removeprefix('torch.')}") for c in CASES for d in c.dtypes]
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


def build(case: Case, dtype: torch.dtype) -> dict[str, Any]:
    return case.build(dtype, torch.Generator().manual_seed(1234))


def fp64(arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        for name, value in arguments.items()
    }


def seeds_for(case: Case, arguments: dict[str, Any]) -> list[torch.Tensor]:
    """Output gradients, the same for every function: rounded to each output's dtype once."""
    generator = torch.Generator().manual_seed(99)
    out = outputs(case.call(**arguments))
    return [torch.randn(o.shape, generator=generator).to(o.dtype) for o in out]


def error(x: torch.Tensor, exact: torch.Tensor) -> float:
    return (x.double() - exact).abs().max().item() if x.numel() else 0.0


def assert_close(case: Case, dtype: torch.dtype, arguments: dict[str, Any]) -> None:
    """Within twice the error of plain torch in the same dtype, both against the reference in fp64."""
    seeds = seeds_for(case, arguments)
    exact = with_grads(case.reference, case, fp64(arguments), seeds)
    ours = with_grads(case.call, case, arguments, seeds)
    plain = with_grads(case.plain, case, arguments, seeds)
    assert len(ours) == len(exact) == len(plain)
    for i, (a, b, e) in enumerate(zip(ours, plain, exact, strict=True)):
        if e is None:
            assert a is None or not a.any()
            continue
        assert a.shape == e.shape, i
        assert a.isfinite().all(), i
        scale = e.abs().max().item() if e.numel() else 0.0
        floor = scale * torch.finfo(torch.float32).eps * 4
        assert error(a, e) <= 2 * error(b, e) + floor, f"result {i}: {error(a, e):.3g} against {error(b, e):.3g}"


@pytest.mark.parametrize("level", ISAS)
@pytest.mark.parametrize(("case", "dtype"), ROWS)
def test_results_and_gradients(case: Case, dtype: torch.dtype, level: str, isa: Any) -> None:
    if ISAS.index(level) > ISAS.index(_core.detected_isa()):
        pytest.skip(f"this processor has no {level}")
    isa(level)
    assert_close(case, dtype, build(case, dtype))


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
