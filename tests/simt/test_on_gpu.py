"""The same cases on a GPU, where one is at hand that the kernels run on. Not yet run on one."""

from __future__ import annotations

import pytest
import torch

from golfcore import _core
from golfcore.ops import check, leaky2
from golfcore.ops.cases import OP_CASES, Case
from golfcore.ops.cases.base import with_grads
from golfcore.ops.registry import on_device, why_not

if not torch.cuda.is_available() or why_not(0):
    pytest.skip("no GPU that golfcore's kernels run on", allow_module_level=True)

CASES = [case for case in OP_CASES if case.op in on_device() and not case.bench]
ROWS = [pytest.param(c, d, id=f"{c.id}-{str(d)[6:]}") for c in CASES for d in c.dtypes]
GPU = "cuda:0"


@pytest.mark.parametrize(("case", "dtype"), ROWS)
def test_results_and_gradients(case: Case, dtype: torch.dtype) -> None:
    for finding in check.parity(case, dtype, device=GPU):
        assert finding.ok, str(finding)


@pytest.mark.parametrize("op", sorted(on_device() - {"optim", "bitpack"}))
def test_a_graph_captures_it(op: str) -> None:
    """Forward and backward neither allocate past torch's pool nor wait, and a replay gives the same bits."""
    case = next(c for c in CASES if c.op == op and c.name in ("ragged", "ragged-none", "leaky2-ragged", "all-ragged",
                                                              "gqa-8-4-h64-r16", "gqa-8-4-h32"))  # fmt: skip
    arguments = check.build(case, case.dtypes[-1], device=GPU)
    seeds = check.output_gradients(case, arguments)
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            expected = with_grads(case.call, case, arguments, seeds)
    side.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = with_grads(case.call, case, arguments, seeds)
    graph.replay()
    torch.cuda.synchronize()
    for ours, theirs in zip(captured, expected, strict=True):
        assert (ours is None and theirs is None) or torch.equal(ours, theirs)


def test_it_runs_on_the_current_stream() -> None:
    """A kernel on a side stream comes after what that stream was given before, whatever the default stream does."""
    side = torch.cuda.Stream()
    x = torch.zeros(1 << 20, device=GPU)
    with torch.cuda.stream(side):
        torch.cuda._sleep(50_000_000)
        x.fill_(2.0)
        y = leaky2(x)
    side.synchronize()
    assert (y == 4).all()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="takes two GPUs")
def test_it_runs_where_its_tensors_are() -> None:
    x = torch.full((1000,), 3.0, device="cuda:1")
    assert torch.cuda.current_device() == 0
    assert (leaky2(x) == 9).all()
    assert torch.cuda.current_device() == 0


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="takes two GPUs")
def test_asking_what_a_device_can_do_leaves_the_current_one() -> None:
    """The core's own question: the registry keeps the answer, so that its function may ask nothing."""
    for device in (1, 0, torch.cuda.device_count() + 7):
        _core.device.why_not(device)
        assert torch.empty(1, device="cuda").device.index == torch.cuda.current_device() == 0
