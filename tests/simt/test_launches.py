"""Launches that are written down: nothing runs, and each has the name that the compiler gives the kernel."""

from __future__ import annotations

import pytest
import torch

from golfcore.ops import leaky2, qk, rms_norm, using
from golfcore.ops.launches import Launch, launches_of


def test_a_launch_is_written_down_and_not_run() -> None:
    x = torch.randn(1000, 64).bfloat16()
    results = []
    found = launches_of(lambda: results.append(leaky2(x)))
    assert found == [Launch("activation", "forward<bf16, 8>", grid=32, block=256, dynamic_shared=0)]
    with using("simt"):
        assert torch.equal(leaky2(x), leaky2(x))
    assert launches_of(lambda: None) == []


def test_dynamic_shared_memory_is_the_launchers() -> None:
    q, k = torch.randn(2, 5, 4, 32, requires_grad=True), torch.randn(2, 5, 2, 32, requires_grad=True)
    angles, gain = torch.zeros(5, 8), torch.ones(4, requires_grad=True)
    with using("simt"):
        out = qk(q, k, angles, angles, gain)
    found = launches_of(lambda: torch.autograd.grad(out, (q, k, gain), [torch.ones_like(y) for y in out]))
    # Ten groups of lanes of a block of 256 threads take ten tokens of six heads in turn; a sum for each.
    assert [launch.kernel for launch in found] == ["backward<float, 8, 4>", "add_partials"]
    assert found[0].dynamic_shared == 4 * 6 * (256 // 4 // 6)


def test_kernels_run_again_after_an_error_while_recording() -> None:
    def fail() -> None:
        rms_norm(torch.randn(2, 8))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        launches_of(fail)
    x = torch.randn(3, 8)
    with using("simt"):
        assert torch.allclose(rms_norm(x), rms_norm(x.double()).float(), atol=1e-5)
