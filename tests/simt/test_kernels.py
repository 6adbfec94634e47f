"""The source of every kernel for GPUs, run on the host, against the reference: in eight orders of its threads."""

from __future__ import annotations

import pytest
import torch

from golfcore.ops import check
from golfcore.ops.cases import OP_CASES, Case
from golfcore.ops.cases.base import with_grads
from golfcore.ops.registry import device_dtypes

ROWS = [
    pytest.param(case, dtype, id=f"{case.id}-{str(dtype).removeprefix('torch.')}")
    for case in OP_CASES
    if not case.bench
    for dtype in case.dtypes
    if dtype in device_dtypes(case.op)
]


@pytest.mark.parametrize(("case", "dtype"), ROWS)
def test_results_and_gradients(case: Case, dtype: torch.dtype) -> None:
    with check.on_simt(seed=0):
        findings = check.parity(case, dtype)
    assert findings
    for finding in findings:
        assert finding.ok, str(finding)


@pytest.mark.parametrize(("case", "dtype"), ROWS)
def test_same_bits_in_every_order_of_threads(case: Case, dtype: torch.dtype) -> None:
    arguments = check.build(case, dtype)
    gradients = check.output_gradients(case, arguments)
    runs = []
    for seed in range(8):
        with check.on_simt(seed):
            runs.append(with_grads(case.call, case, arguments, gradients))
    assert all(check.same_bits(runs[0], other) for other in runs[1:])
