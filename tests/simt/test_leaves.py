"""The kernels for GPUs behind ``torch.ops.golf``: what ``torch.compile`` is told of a leaf is what its kernel gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from golfcore.ops import check, embed
from golfcore.ops.cases import OP_CASES, Case
from golfcore.ops.cases.base import with_grads
from golfcore.ops.registry import device_dtypes, leaves, on_device

MORE = (
    "bitpack/product-vector",
    "bitpack/dequantize-int6",
    "bitpack/fake-whole",
    "optim/adamw-tiny",
    "optim/muon-wide",
)
SMALL = [
    pytest.param(case, id=case.id)
    for case in OP_CASES
    if case.op in on_device() and (case.gradcheck or case.id in MORE)
]


class Recorder(TorchDispatchMode):
    """Keeps the arguments of every call of a native leaf."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "golf":
            self.calls.append((func, args, kwargs or {}))
        return func(*args, **(kwargs or {}))


def _calls(case: Case, dtype: torch.dtype) -> list[tuple[Any, Any, Any]]:
    arguments = check.build(case, dtype)
    with Recorder() as recorder:
        with_grads(case.call, case, arguments, check.output_gradients(case, arguments))
    return recorder.calls


PAIRS = [
    pytest.param(row.values[0], dtype, id=f"{row.id}-{str(dtype).removeprefix('torch.')}")
    for row in SMALL
    for dtype in (torch.float32, torch.bfloat16)
    if dtype in device_dtypes(row.values[0].op)
]


@pytest.mark.parametrize(("case", "dtype"), PAIRS)
def test_fake_results_are_those_of_the_kernels(case: Case, dtype: torch.dtype) -> None:
    with check.on_simt(seed=0):
        calls = _calls(case, dtype)
        assert calls
        for func, args, kwargs in calls:
            torch.library.opcheck(func, args, kwargs, test_utils=("test_schema", "test_faketensor"))


def test_every_leaf_of_these_operations_is_seen() -> None:
    seen = {func.name() for row in SMALL for func, _, _ in _calls(row.values[0], torch.float32)}
    expected = {f"golf::{name}" for op in on_device() for name in leaves()[op]}
    # Elsewhere: test_integers.py, and below.
    assert expected - seen == {"golf::pack", "golf::unpack", "golf::embed_into_backward"} - seen


def test_the_gradient_of_a_table_is_added_where_the_caller_keeps_it() -> None:
    ids, table = torch.randint(0, 5, (2, 40)), torch.randn(5, 8)
    smear = {"smear_w": torch.randn(3), "smear_lambda": torch.tensor(0.3)}
    kept, before = torch.randn(5, 8), torch.zeros(5, 8)
    with check.on_simt(seed=2):
        given = table.clone().requires_grad_()
        embed(ids, given, **smear, dtype=torch.float32).square().sum().backward()
        before.copy_(kept)
        same = table.clone().requires_grad_()
        embed(ids, same, **smear, dtype=torch.float32, grad_into=kept).square().sum().backward()
    assert given.grad is not None
    assert same.grad is None
    assert torch.allclose(kept, before + given.grad, rtol=1e-6, atol=1e-5)
