"""Every native operation against its reference, over one table of cases."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from golfcore import _core
from golfcore.errors import InputError
from golfcore.ops import check, rms_norm
from golfcore.ops.cases import OP_CASES, Case
from golfcore.ops.cases.base import outputs, with_grads
from golfcore.ops.registry import HIGHEST_ISA, ISAS, backends, leaves, using

CASES = [case for case in OP_CASES if not case.bench]
ROWS = [pytest.param(c, d, id=f"{c.id}-{str(d).removeprefix('torch.')}") for c in CASES for d in c.dtypes]
LEVELS = [pytest.param(*row.values, level, id=f"{row.id}-{level}") for row in ROWS for level in ISAS]
SMALL = [pytest.param(c, id=c.id) for c in CASES if c.gradcheck]


@pytest.mark.parametrize(("case", "dtype", "level"), LEVELS)
def test_results_and_gradients(case: Case, dtype: torch.dtype, level: str) -> None:
    if level not in check.levels():
        pytest.skip(f"this processor has no {level}")
    with check.at_level(level):
        findings = check.parity(case, dtype)
    assert findings
    for finding in findings:
        assert finding.ok, str(finding)


@pytest.mark.parametrize(("case", "dtype"), ROWS)
def test_same_bits_for_any_number_of_threads(case: Case, dtype: torch.dtype) -> None:
    if not check.promises_same_bits(case, dtype):
        pytest.skip("torch's own fp32 products inside depend on the number of threads")
    assert check.same_for_any_threads(case, dtype)


@pytest.mark.parametrize("case", SMALL)
def test_reference_gradient(case: Case) -> None:
    arguments = check.fp64(check.build(case, torch.float32))
    taken = [arguments[name].requires_grad_() for name in case.grads]

    def function(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return outputs(case.reference(**{**arguments, **dict(zip(case.grads, values, strict=True))}))

    assert torch.autograd.gradcheck(function, taken)


class Recorder(TorchDispatchMode):
    """Keeps the arguments of the last call of each native leaf."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, tuple[Any, Any, Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "golf":
            self.calls[func.name()] = (func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("case", SMALL)
def test_leaves_pass_opcheck(case: Case, dtype: torch.dtype) -> None:
    arguments = check.build(case, dtype)
    with Recorder() as recorder:
        with_grads(case.call, case, arguments, check.output_gradients(case, arguments))
    assert recorder.calls
    for name, (func, args, kwargs) in recorder.calls.items():
        differentiable = bool(case.grads) and not name.endswith("_backward")
        args = tuple(
            a.detach().clone().requires_grad_(differentiable and a.is_floating_point())
            if isinstance(a, torch.Tensor) else a
            for a in args
        )  # fmt: skip
        torch.library.opcheck(func, args, kwargs)


@pytest.mark.parametrize("case", SMALL)
def test_compiles_without_a_graph_break(case: Case) -> None:
    arguments = check.build(case, torch.float32)
    seeds = check.output_gradients(case, arguments)
    torch.compiler.reset()
    compiled = torch.compile(case.call, fullgraph=True, backend="aot_eager")
    ours = with_grads(compiled, case, arguments, seeds)
    for a, b in zip(ours, with_grads(case.call, case, arguments, seeds), strict=True):
        assert (a is None and b is None) or torch.equal(a, b)


def test_every_operation_has_cases() -> None:
    named = {case.op for case in OP_CASES}
    assert named == set(leaves())
    assert len({case.id for case in OP_CASES}) == len(OP_CASES)
    assert {case.op for case in OP_CASES if case.bench} == named


def test_backends_name_what_serves() -> None:
    assert set(backends().values()) == {f"native-{_core.active_isa()}"}
    with using("reference"):
        assert set(backends().values()) == {"reference"}


@pytest.mark.parametrize("level", ISAS)
def test_isa_can_only_be_lowered(level: str) -> None:
    _core.set_isa(level)
    try:
        assert ISAS.index(_core.active_isa()) == min(ISAS.index(level), ISAS.index(HIGHEST_ISA))
    finally:
        _core.set_isa(ISAS[-1])


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("GOLF_ISA", "scalar", "native-scalar"),
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


def test_the_check_sees_a_wrong_kernel() -> None:
    case = next(c for c in CASES if c.id == "activation/relu2-ragged")

    def slightly_off(u: torch.Tensor, slope: float) -> torch.Tensor:
        result: torch.Tensor = case.call(u, slope) + torch.where(torch.arange(u.shape[-1]) == 7, 1e-4, 0.0)
        return result

    def no_gradient(u: torch.Tensor, slope: float) -> torch.Tensor:
        result: torch.Tensor = case.call(u.detach(), slope) + 0 * u
        return result

    assert [f.ok for f in check.parity(case, torch.float32, slightly_off)] == [False, True]
    assert [f.ok for f in check.parity(case, torch.float32, no_gradient)] == [True, False]


def test_a_second_derivative_is_refused_with_the_remedy() -> None:
    x = torch.randn(3, 8, requires_grad=True)
    with pytest.raises(InputError, match="no second derivative; leave create_graph out"):
        torch.autograd.grad(rms_norm(x).sum(), x, create_graph=True)
    with using("reference"):
        (first,) = torch.autograd.grad(rms_norm(x).sum(), x, create_graph=True)
        first.sum().backward()
    assert x.grad is not None
