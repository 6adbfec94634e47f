"""What the operations say of inputs that they cannot serve, and what they make of extreme numbers."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from golfcore.errors import InputError
from golfcore.ops import leaky2, linear, mix_norm, qk, relu2, residual, rms_norm, using
from golfcore.ops.cases.qk import plain as plain_qk

X = torch.randn(4, 6)
V = torch.randn(6)
Q, K = torch.randn(2, 5, 4, 8), torch.randn(2, 5, 2, 8)
C = torch.randn(5, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: relu2(torch.ones(3, dtype=torch.int64)), "activation: u is torch.int64"),
        (lambda: leaky2(X, 1.5), "slope = 1.5; expected 0 to 1"),
        (lambda: leaky2(X, math.nan), "slope = nan"),
        (lambda: rms_norm(torch.ones(2, 3, dtype=torch.int32)), "norm: x is torch.int32"),
        (lambda: rms_norm(torch.tensor(1.0)), r"norm: x has shape \(\)"),
        (lambda: rms_norm(torch.ones(3, 0)), r"norm: x has shape \(3, 0\)"),
        (lambda: mix_norm(X, X[:2]), r"norm: branch has shape \(2, 6\); expected \(4, 6\)"),
        (lambda: mix_norm(X, X.bfloat16()), r"norm: branch is torch.bfloat16; expected torch.float32: convert it"),
        (lambda: mix_norm(X, skip=X), "skip is given without skip_gain"),
        (lambda: mix_norm(X, skip_gain=V), "skip_gain is given without skip"),
        (lambda: mix_norm(X, branch_gain=V), "branch_gain is given without branch"),
        (lambda: mix_norm(X, stream_gain=V[:5]), r"norm: stream_gain has shape \(5,\); expected \(6,\)"),
        (lambda: mix_norm(X, stream_gain=V.bfloat16()), "norm: stream_gain is torch.bfloat16; expected torch.float32"),
        (lambda: mix_norm(X, X.to("meta")), "norm: branch is on meta, x on cpu; move one"),
        (lambda: residual(X, X[:2], V), r"residual: branch has shape \(2, 6\); expected \(4, 6\)"),
        (
            lambda: residual(X, X.bfloat16(), V),
            "residual: branch is torch.bfloat16; expected torch.float32: convert it",
        ),
        (lambda: residual(X, X, V.to("meta")), "residual: branch_gain is on meta, x on cpu; move one"),
        (lambda: residual(torch.ones(3, 0), torch.ones(3, 0), V), r"residual: x has shape \(3, 0\)"),
        (lambda: linear(X), "linear: 0 weights"),
        (lambda: linear(X, V), r"linear: weights\[0\] has shape \(6,\); expected .O, 6."),
        (lambda: linear(X, X, X[:, :5]), r"linear: weights\[1\] has shape \(4, 5\); expected \(4, 6\)"),
        (lambda: linear(X, X.bfloat16()), "linear: weights.0. is torch.bfloat16 on cpu, x is torch.float32"),
        (lambda: linear(X.bfloat16(), X, X.bfloat16()), "and all weights the same"),
        (lambda: linear(X.long(), X), "linear: x is torch.int64"),
        (lambda: qk(Q[0], K[0], C, C), r"qk: q has shape \(5, 4, 8\)"),
        (lambda: qk(Q, K[:, :4], C, C), "expected .B, T, N, H. and .B, T, K, H. with the same"),
        (lambda: qk(Q, K.bfloat16(), C, C), "qk: k is torch.bfloat16; expected torch.float32"),
        (lambda: qk(Q, K, C[:4], C[:4]), "cos has 4 positions, the sequence 5"),
        (lambda: qk(Q, K, torch.ones(5, 5), torch.ones(5, 5)), "2 R <= 8"),
        (lambda: qk(Q, K, C, C[:, :2]), r"qk: sin has shape \(5, 2\); expected \(5, 3\)"),
        (lambda: qk(Q, K, C, C, torch.ones(2)), r"qk: gain has shape \(2,\); expected \(4,\)"),
        (lambda: qk(Q, K, C, C, None, torch.zeros(2, 5)), "positions is torch.float32; expected torch.int32"),
        (lambda: qk(Q, K, C, C, None, torch.full((2, 5), 5, dtype=torch.int32)), "positions run from 5 to 5"),
        (lambda: qk(Q, K, C, C, None, torch.full((2, 5), -1, dtype=torch.int32)), "positions run from -1 to -1"),
    ],
)
def test_bad_input_names_the_tensor_and_the_remedy(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_dtypes_take_the_reference(dtype: torch.dtype) -> None:
    x = torch.randn(3, 8, dtype=dtype)
    with using("reference"):
        expected = relu2(x), rms_norm(x), *mix_norm(x, x)
    for ours, theirs in zip((relu2(x), rms_norm(x), *mix_norm(x, x)), expected, strict=True):
        assert ours.dtype == dtype
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("slope", [0.0, 0.5])
def test_activation_of_extremes(dtype: torch.dtype, slope: float) -> None:
    u = torch.tensor([math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-30, -3.0, 1e30], dtype=dtype).repeat(5)
    with using("reference"):
        expected = leaky2(u, slope)
    torch.testing.assert_close(
        leaky2(u, slope), expected, rtol=1e-6 if dtype == torch.float32 else 8e-3, atol=0, equal_nan=True
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_nan_stays_in_its_row(dtype: torch.dtype) -> None:
    x = torch.randn(5, 40, dtype=dtype)
    x[2, 17] = math.nan
    r, h = mix_norm(x, torch.zeros_like(x))
    assert h.isnan().any(-1).tolist() == r.isnan().any(-1).tolist() == [False, False, True, False, False]
    assert h[2].isnan().all()
    q, k = torch.randn(1, 3, 4, 32, dtype=dtype), torch.randn(1, 3, 2, 32, dtype=dtype)
    q[0, 1, 2, 5] = math.nan
    ours, keys = qk(q, k, torch.ones(3, 16), torch.zeros(3, 16))
    assert ours.isnan().all(-1).nonzero().tolist() == [[0, 1, 2]]
    assert ours.isnan().sum() == 32
    assert keys.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_of_zeros_have_finite_gradients(dtype: torch.dtype) -> None:
    x = torch.zeros(3, 20, dtype=dtype, requires_grad=True)
    h = rms_norm(x)
    h.sum().backward()
    assert not h.any()
    torch.testing.assert_close(x.grad, torch.full_like(x, 1e3))  # 1 / sqrt(eps)


def test_gradients_of_one_output_alone() -> None:
    """A stream whose norm is not used, and a norm whose stream is not used."""
    for which in (0, 1):
        grads = []
        for mode in ("native", "reference"):
            x, y, a = (t.clone().requires_grad_() for t in (X, X.flip(0), V))
            with using(mode):
                mix_norm(x, y, stream_gain=a)[which].square().sum().backward()
            grads.append((x.grad, y.grad, a.grad))
        for ours, theirs in zip(*grads, strict=True):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("mode", ["native", "reference"])
def test_positions_outside_the_tables_whatever_serves(mode: str) -> None:
    with using(mode), pytest.raises(InputError, match="positions run from 5 to 5; the tables hold 0 to 4"):
        qk(Q, K, C, C, None, torch.full((2, 5), 5, dtype=torch.int32))


def test_no_gradient_is_asked_for_nothing() -> None:
    q, k = qk(Q, K, C, C)
    expected, _ = plain_qk(Q, K, C, C)
    assert not q.requires_grad
    torch.testing.assert_close(q, expected)
    assert k.shape == K.shape


def test_the_core_works_without_openmp() -> None:
    """Its own threads give what the borrowed ones give, also in a forked child."""
    code = """
import os, torch
from golfcore import _core
from golfcore.ops import leaky2, mix_norm
torch.set_num_threads(3)
x = torch.randn(700, 256)
borrowed = leaky2(x), *mix_norm(x, x)
_core.borrow_openmp(0)
def same():
    # numpy compares: torch's own threads do not survive a fork.
    return all((a.numpy() == b.numpy()).all() for a, b in zip(borrowed, (leaky2(x), *mix_norm(x, x))))
assert all(same() for _ in range(50))
child = os.fork()
if child == 0:
    os._exit(0 if same() else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    environment = {**os.environ, "GOLF_OPS": "native"}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False, timeout=60).returncode == 0
