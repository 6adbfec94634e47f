"""The residual stream's sum on its own, where no norm follows that could do it in its pass; norm's kernels serve it."""

from __future__ import annotations

from typing import Any

import torch

from golfcore.errors import InputError
from golfcore.ops import kernels
from golfcore.ops.arguments import check_float, check_same, check_shape, rows
from golfcore.ops.reference.norm import residual as reference
from golfcore.ops.registry import DTYPE_CODE, address, core, define_op, native, register_backward


def residual(x: torch.Tensor, branch: torch.Tensor, branch_gain: torch.Tensor) -> torch.Tensor:
    """Add a branch to the residual stream: ``x + branch_gain * branch`` in the dtype of ``x``, computed in fp32.

    If a norm follows, ``mix_norm`` does both in one pass.

    Args:
        x: [..., D] float, the stream.
        branch: the shape and dtype of ``x``: the output of attention or of the MLP.
        branch_gain: fp32 [D].

    Returns:
        [..., D], contiguous.

    Raises:
        InputError: a tensor of another shape, dtype or device than the above.
    """
    check_float("residual", "x", x)
    if x.ndim == 0 or x.shape[-1] == 0:
        raise InputError(f"residual: x has shape {tuple(x.shape)}; expected [..., D] with D of at least 1")
    check_shape("residual", "branch", branch, tuple(x.shape))
    check_same("residual", "branch", branch, "x", x)
    check_shape("residual", "branch_gain", branch_gain, (x.shape[-1],))
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    check_same("residual", "branch_gain", branch_gain, "x", x, dtype=wide)
    if not native("residual", x) or x.shape[-1] > core(x).norm_max_width:
        return reference(x, branch, branch_gain)
    r: torch.Tensor = _leaf(x, branch, branch_gain)
    return r


def _forward(x: torch.Tensor, y: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
    x_ND, y_ND, s, r, code = rows(x), rows(y), s.contiguous(), x.new_empty(x.shape), DTYPE_CODE[x.dtype]
    n, d = x_ND.shape
    kernels.norm_forward(
        x, dtype=code, branch_dtype=code, x=address(x_ND), y=address(y_ND), s=address(s), r=address(r), n=n, d=d,
        x_stride=x_ND.stride(0), y_stride=y_ND.stride(0),
    )  # fmt: skip
    return r


def _backward(dr: torch.Tensor, y: torch.Tensor, s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    dr_ND, y_ND, s, code = rows(dr), rows(y), s.contiguous(), DTYPE_CODE[y.dtype]
    (n, d), (dy, ds) = y_ND.shape, _backward_fake(dr, y, s)
    partials = s.new_empty(core(y).norm_partials(n) * 3 * d)
    kernels.norm_backward(
        y, dtype=code, branch_dtype=code, dr=address(dr_ND), y=address(y_ND), s=address(s), dy=address(dy),
        ds=address(ds), partials=address(partials), n=n, d=d, dr_stride=dr_ND.stride(0), y_stride=y_ND.stride(0),
    )  # fmt: skip
    return dy, ds


def _backward_fake(dr: torch.Tensor, y: torch.Tensor, s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return y.new_empty(y.shape), s.new_empty(s.shape)


_leaf = define_op(
    "residual",
    "residual(Tensor x, Tensor y, Tensor s) -> Tensor",
    _forward,
    lambda x, y, s: x.new_empty(x.shape),
    device=_forward,
)
_leaf_backward = define_op(
    "residual",
    "residual_backward(Tensor dr, Tensor y, Tensor s) -> (Tensor, Tensor)",
    _backward,
    _backward_fake,
    device=_backward,
)


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs[1:])


def _gradient(ctx: Any, dr: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return dr, *_leaf_backward(dr, *ctx.saved_tensors)


register_backward(_leaf, _setup, _gradient)
