"""RMSNorm, rotary positions and gain of queries and keys, forward and backward in one pass each."""

from __future__ import annotations

from typing import Any

import torch

from golfcore.errors import InputError
from golfcore.ops import kernels
from golfcore.ops.arguments import check_float, check_same, check_shape, heads
from golfcore.ops.reference.qk import qk as reference
from golfcore.ops.registry import DTYPE_CODE, NULL, address, core, define_op, native, register_backward

MaybeTensor = torch.Tensor | None


def qk(
    q_BTNH: torch.Tensor,
    k_BTKH: torch.Tensor,
    cos_TR: torch.Tensor,
    sin_TR: torch.Tensor,
    gain_N: MaybeTensor = None,
    positions_BT: MaybeTensor = None,
    eps: float = 1e-6,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Prepare queries and keys for attention: RMSNorm per head, rotation by position, gain on queries.

    The first ``2 R`` of a head's dimensions are rotated in pairs ``(i, i + R)``: ``(u, v)`` becomes
    ``(u cos + v sin, v cos - u sin)``. Computed in fp32.

    Args:
        q_BTNH: [B, T, N, H] float; may be a view into a wider product, heads of a token together.
        k_BTKH: [B, T, K, H], same dtype.
        cos_TR: fp32 [positions, R] with ``2 R <= H``; no gradient.
        sin_TR: the same.
        gain_N: fp32 [N]; absent: 1.
        positions_BT: int32 [B, T], the row of the tables for each token; absent: 0, 1, ... T-1.
        eps: added to the mean square.

    Returns:
        Both in their dtype and shape, contiguous.

    Raises:
        InputError: a tensor of another shape, dtype or device than the above, or a position outside the tables.
    """
    _check(q_BTNH, k_BTKH, cos_TR, sin_TR, gain_N, positions_BT)
    if not native("qk", q_BTNH):
        if positions_BT is not None and not torch.compiler.is_compiling():
            _check_positions(positions_BT, cos_TR)
        return reference(q_BTNH, k_BTKH, cos_TR, sin_TR, gain_N, positions_BT, eps)
    q, k = _leaf(q_BTNH, k_BTKH, cos_TR, sin_TR, gain_N, positions_BT, eps)
    return q, k


def _check(
    q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, gain: MaybeTensor, positions: MaybeTensor
) -> None:
    check_float("qk", "q", q)
    if q.ndim != 4 or k.ndim != 4 or q.shape[:2] != k.shape[:2] or q.shape[3] != k.shape[3] or q.shape[3] == 0:
        raise InputError(
            f"qk: q has shape {tuple(q.shape)}, k {tuple(k.shape)}; expected [B, T, N, H] and [B, T, K, H] with the "
            "same B, T and H"
        )
    check_same("qk", "k", k, "q", q)
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    if cos.ndim != 2 or 2 * cos.shape[1] > q.shape[3]:
        raise InputError(f"qk: cos has shape {tuple(cos.shape)}; expected [positions, R] with 2 R <= {q.shape[3]}")
    check_shape("qk", "sin", sin, tuple(cos.shape))
    for name, table in (("cos", cos), ("sin", sin)):
        check_same("qk", name, table, "q", q, dtype=wide)
    if gain is not None:
        check_shape("qk", "gain", gain, (q.shape[2],))
        check_same("qk", "gain", gain, "q", q, dtype=wide)
    if positions is not None:
        check_shape("qk", "positions", positions, (q.shape[0], q.shape[1]))
        check_same("qk", "positions", positions, "q", q, dtype=torch.int32)
    elif cos.shape[0] < q.shape[1]:
        raise InputError(
            f"qk: cos has {cos.shape[0]} positions, the sequence {q.shape[1]}; build longer tables or pass positions"
        )


def _check_positions(positions: torch.Tensor, cos: torch.Tensor) -> None:
    low, high = (int(v) for v in positions.aminmax()) if positions.numel() else (0, 0)
    if low < 0 or high >= max(1, cos.shape[0]):
        raise InputError(
            f"qk: positions run from {low} to {high}; the tables hold 0 to {cos.shape[0] - 1}: build longer ones"
        )


def _forward(
    q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, gain: MaybeTensor,
    positions: MaybeTensor, eps: float,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    b, t, n, h = q.shape
    out = q.new_empty(q.shape), k.new_empty(k.shape)
    if b * t == 0:
        return out
    if positions is not None:
        positions = positions.contiguous()
        if not positions.is_cuda:  # there a look at the numbers would make the processor wait
            _check_positions(positions, cos)
    (q, q_stride), (k, k_stride) = heads(q), heads(k)
    cos, sin, gain = cos.contiguous(), sin.contiguous(), None if gain is None else gain.contiguous()
    kernels.qk_forward(
        q, dtype=DTYPE_CODE[q.dtype], q=address(q), k=address(k), q_out=address(out[0]), k_out=address(out[1]),
        cos=address(cos), sin=address(sin), positions=address(positions), gain=address(gain), tokens=b * t, length=t,
        q_heads=n, k_heads=k.shape[2], head_dim=h, half=cos.shape[1], q_stride=q_stride, k_stride=k_stride, eps=eps,
    )  # fmt: skip
    return out


def _fake(
    q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, gain: MaybeTensor,
    positions: MaybeTensor, eps: float,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    return q.new_empty(q.shape), k.new_empty(k.shape)


def _backward(
    dq_out: torch.Tensor, dk_out: torch.Tensor, q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor,
    sin: torch.Tensor, gain: MaybeTensor, positions: MaybeTensor, eps: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    b, t, n, h = q.shape
    dq, dk, dgain = _backward_fake(dq_out, dk_out, q, k, cos, sin, gain, positions, eps)
    if b * t == 0:
        return dq, dk, dgain.zero_()
    (q, q_stride), (k, k_stride) = heads(q), heads(k)
    (dq_out, dq_stride), (dk_out, dk_stride) = heads(dq_out), heads(dk_out)
    cos, sin, gain = cos.contiguous(), sin.contiguous(), None if gain is None else gain.contiguous()
    positions = None if positions is None else positions.contiguous()
    dgain_at = partials_at = NULL
    if gain is not None:
        partials = dgain.new_empty(core(q).qk_partials(b * t) * n)
        dgain_at, partials_at = address(dgain), address(partials)
    kernels.qk_backward(
        q, dtype=DTYPE_CODE[q.dtype], q=address(q), k=address(k), dq_out=address(dq_out), dk_out=address(dk_out),
        dq=address(dq), dk=address(dk), cos=address(cos), sin=address(sin), positions=address(positions),
        gain=address(gain), dgain=dgain_at,
        partials=partials_at, tokens=b * t, length=t, q_heads=n, k_heads=k.shape[2],
        head_dim=h, half=cos.shape[1], q_stride=q_stride, k_stride=k_stride, dq_out_stride=dq_stride,
        dk_out_stride=dk_stride, eps=eps,
    )  # fmt: skip
    return dq, dk, dgain


def _backward_fake(
    dq_out: torch.Tensor, dk_out: torch.Tensor, q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor,
    sin: torch.Tensor, gain: MaybeTensor, positions: MaybeTensor, eps: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    return (
        q.new_empty(q.shape),
        k.new_empty(k.shape),
        q.new_empty(0 if gain is None else q.shape[2], dtype=torch.float32),
    )


_leaf = define_op(
    "qk",
    "qk(Tensor q, Tensor k, Tensor cos, Tensor sin, Tensor? gain, Tensor? positions, float eps) -> (Tensor, Tensor)",
    _forward,
    _fake,
    device=_forward,
)
_leaf_backward = define_op(
    "qk",
    "qk_backward(Tensor dq_out, Tensor dk_out, Tensor q, Tensor k, Tensor cos, Tensor sin, Tensor? gain,"
    " Tensor? positions, float eps) -> (Tensor, Tensor, Tensor)",
    _backward,
    _backward_fake,
    device=_backward,
)


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    q, k, cos, sin, gain, positions, ctx.eps = inputs
    ctx.save_for_backward(q, k, cos, sin, gain, positions)


def _gradient(ctx: Any, dq_out: torch.Tensor, dk_out: torch.Tensor) -> tuple[Any, ...]:
    q, k, cos, sin, gain, positions = ctx.saved_tensors
    dq, dk, dgain = _leaf_backward(dq_out, dk_out, q, k, cos, sin, gain, positions, ctx.eps)
    return dq, dk, None, None, None if gain is None else dgain, None, None


register_backward(_leaf, _setup, _gradient)
