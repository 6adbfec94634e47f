"""RMSNorm, alone or behind the residual stream's sum, forward and backward in one pass each."""

from __future__ import annotations

from typing import Any

import torch

from golfcore.errors import InputError
from golfcore.ops import kernels
from golfcore.ops.arguments import check_float, check_same, check_shape, maybe_contiguous, maybe_rows, row_stride, rows
from golfcore.ops.reference.norm import mix_norm as reference
from golfcore.ops.registry import DTYPE_CODE, NULL, address, core, define_op, native, register_backward

MaybeTensor = torch.Tensor | None


def rms_norm(
    x: torch.Tensor, *, scale: float = 1.0, eps: float = 1e-6, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """Normalize each row of ``x``: ``scale * x / sqrt(mean(x**2) + eps)``, computed in fp32.

    Args:
        x: [..., D] float.
        scale: a factor on the result.
        eps: added to the mean square.
        dtype: of the result; default: that of ``x``.

    Returns:
        [..., D] in ``dtype``, contiguous.

    Raises:
        InputError: ``x`` is no floating-point tensor, or has no last dimension.
    """
    dtype = dtype or x.dtype
    _check_stream(x)
    if not _serves(x, dtype):
        return reference(x, scale=scale, eps=eps, dtype=dtype)[1]
    h: torch.Tensor = _plain(x, scale, eps, dtype)[0]
    return h


def mix_norm(
    x: torch.Tensor,
    branch: MaybeTensor = None,
    skip: MaybeTensor = None,
    *,
    stream_gain: MaybeTensor = None,
    branch_gain: MaybeTensor = None,
    skip_gain: MaybeTensor = None,
    scale: float = 1.0,
    eps: float = 1e-6,
    dtype: torch.dtype | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add a branch and a skip to the residual stream and normalize the sum, in one pass each way.

    ``stream = stream_gain * (x + branch_gain * branch) + skip_gain * skip``, then
    ``normalized = scale * stream / sqrt(mean(stream**2) + eps)``, from the stream as it is stored. Every term but ``x``
    is optional; arithmetic is fp32.

    Args:
        x: [..., D] float, the residual stream.
        branch: the shape of ``x``, in ``dtype``: the output of attention or of the MLP.
        skip: shape and dtype of ``x``: an earlier stream, such as the first block's input. Comes with ``skip_gain``.
        stream_gain: fp32 [D]; absent: 1.
        branch_gain: fp32 [D]; absent: 1.
        skip_gain: fp32 [D].
        scale: a factor on the normalized result.
        eps: added to the mean square.
        dtype: of ``normalized`` and ``branch``; default: that of ``x``.

    Returns:
        The stream in the dtype of ``x`` (``x`` itself if there is nothing to mix) and the normalized stream in
        ``dtype``.

    Raises:
        InputError: a tensor of another shape, dtype or device than the above.
    """
    dtype = dtype or x.dtype
    _check(x, branch, skip, stream_gain, branch_gain, skip_gain, dtype)
    if not _serves(x, dtype):
        return reference(
            x, branch, skip, stream_gain=stream_gain, branch_gain=branch_gain, skip_gain=skip_gain, scale=scale,
            eps=eps, dtype=dtype,
        )  # fmt: skip
    if branch is None and stream_gain is None and skip_gain is None:
        return x, _plain(x, scale, eps, dtype)[0]
    stream, normalized, _ = _mixed(x, branch, skip, stream_gain, branch_gain, skip_gain, scale, eps, dtype)
    return stream, normalized


_PAIRS = (
    (torch.float32, torch.float32),
    (torch.bfloat16, torch.bfloat16),
    (torch.float32, torch.bfloat16),
)


def _serves(x: torch.Tensor, dtype: torch.dtype) -> bool:
    return native("norm", x) and (x.dtype, dtype) in _PAIRS and x.shape[-1] <= core(x).norm_max_width


def _check_stream(x: torch.Tensor) -> None:
    check_float("norm", "x", x)
    if x.ndim == 0 or x.shape[-1] == 0:
        raise InputError(f"norm: x has shape {tuple(x.shape)}; expected [..., D] with D of at least 1")


def _check(
    x: torch.Tensor, branch: MaybeTensor, skip: MaybeTensor, stream_gain: MaybeTensor, branch_gain: MaybeTensor,
    skip_gain: MaybeTensor, dtype: torch.dtype,
) -> None:  # fmt: skip
    _check_stream(x)
    if (skip is None) != (skip_gain is None):
        given, missing = ("skip_gain", "skip") if skip is None else ("skip", "skip_gain")
        raise InputError(f"norm: {given} is given without {missing}; pass both or neither")
    if branch_gain is not None and branch is None:
        raise InputError("norm: branch_gain is given without branch, which it scales; pass both or leave it out")
    for name, other, kind in (("branch", branch, dtype), ("skip", skip, x.dtype)):
        if other is None:
            continue
        check_shape("norm", name, other, tuple(x.shape))
        if other.dtype != kind:
            raise InputError(f"norm: {name} is {other.dtype}; expected {kind}: convert it with {name}.to({kind})")
        if other.device != x.device:
            raise InputError(f"norm: {name} is on {other.device}, x on {x.device}; move one with {name}.to(x.device)")
    for name, gain in (("stream_gain", stream_gain), ("branch_gain", branch_gain), ("skip_gain", skip_gain)):
        if gain is not None:
            check_shape("norm", name, gain, (x.shape[-1],))
            wide = torch.float64 if x.dtype == torch.float64 else torch.float32
            check_same("norm", name, gain, "x", x, dtype=wide)


# From here on the letters of csrc/norm/norm.h: y the branch, x0 the skip, a, s and b the gains of stream, branch and
# skip, c the scale, r the stream that results, h what is normalized.


def _forward(
    x: torch.Tensor, y: MaybeTensor, x0: MaybeTensor, a: MaybeTensor, s: MaybeTensor, b: MaybeTensor,
    c: float, eps: float, dtype: torch.dtype, mixed: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    x_ND = rows(x)
    y_ND, x0_ND = maybe_rows(y), maybe_rows(x0)
    a, s, b = maybe_contiguous(a), maybe_contiguous(s), maybe_contiguous(b)
    n, d = x_ND.shape
    r = x.new_empty(x.shape if mixed else 0)
    h = x.new_empty(x.shape, dtype=dtype)
    rstd_N = x.new_empty(n, dtype=torch.float32)
    kernels.norm_forward(
        x, dtype=DTYPE_CODE[x.dtype], branch_dtype=DTYPE_CODE[dtype], x=address(x_ND), y=address(y_ND),
        x0=address(x0_ND), a=address(a), s=address(s), b=address(b), r=address(r) if mixed else NULL, h=address(h),
        rstd=address(rstd_N), n=n, d=d, x_stride=x_ND.stride(0), y_stride=row_stride(y_ND),
        x0_stride=row_stride(x0_ND), c=c, eps=eps,
    )  # fmt: skip
    return r, h, rstd_N


def _mixed_native(
    x: torch.Tensor, y: MaybeTensor, x0: MaybeTensor, a: MaybeTensor, s: MaybeTensor, b: MaybeTensor,
    c: float, eps: float, dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    return _forward(x, y, x0, a, s, b, c, eps, dtype, True)


def _mixed_fake(
    x: torch.Tensor, y: MaybeTensor, x0: MaybeTensor, a: MaybeTensor, s: MaybeTensor, b: MaybeTensor,
    c: float, eps: float, dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    count = x.numel() // x.shape[-1]
    return x.new_empty(x.shape), x.new_empty(x.shape, dtype=dtype), x.new_empty(count, dtype=torch.float32)


def _plain_native(x: torch.Tensor, c: float, eps: float, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    _, h, rstd_N = _forward(x, None, None, None, None, None, c, eps, dtype, False)
    return h, rstd_N


def _plain_fake(x: torch.Tensor, c: float, eps: float, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    count = x.numel() // x.shape[-1]
    return x.new_empty(x.shape, dtype=dtype), x.new_empty(count, dtype=torch.float32)


def _backward_native(
    dr: MaybeTensor, dh: MaybeTensor, r: torch.Tensor, rstd_N: torch.Tensor, x: MaybeTensor, y: MaybeTensor,
    x0: MaybeTensor, a: MaybeTensor, s: MaybeTensor, b: MaybeTensor, c: float, branch: torch.dtype,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    d = r.shape[-1]
    dr_ND, dh_ND, r_ND = maybe_rows(dr), maybe_rows(dh), rows(r)
    x_ND, y_ND, x0_ND = maybe_rows(x), maybe_rows(y), maybe_rows(x0)
    a, s, b = maybe_contiguous(a), maybe_contiguous(s), maybe_contiguous(b)
    n = rstd_N.numel()
    dx, dy, dx0, da, ds, db = _backward_fake(dr, dh, r, rstd_N, x, y, x0, a, s, b, c, branch)
    sums = a is not None or s is not None or b is not None
    partials = r.new_empty(core(r).norm_partials(n) * 3 * d if sums else 0, dtype=torch.float32)
    kernels.norm_backward(
        r, dtype=DTYPE_CODE[r.dtype], branch_dtype=DTYPE_CODE[branch], dr=address(dr_ND), dh=address(dh_ND),
        r=address(r_ND), rstd=address(rstd_N), x=address(x_ND), y=address(y_ND), x0=address(x0_ND), a=address(a),
        s=address(s), b=address(b), dx=address(dx), dy=NULL if y is None else address(dy),
        dx0=NULL if b is None else address(dx0), da=NULL if a is None else address(da),
        ds=NULL if s is None else address(ds), db=NULL if b is None else address(db),
        partials=address(partials) if sums else NULL, n=n, d=d, dr_stride=row_stride(dr_ND),
        dh_stride=row_stride(dh_ND), r_stride=r_ND.stride(0), x_stride=row_stride(x_ND), y_stride=row_stride(y_ND),
        x0_stride=row_stride(x0_ND), c=c,
    )  # fmt: skip
    return dx, dy, dx0, da, ds, db


def _backward_fake(
    dr: MaybeTensor, dh: MaybeTensor, r: torch.Tensor, rstd_N: torch.Tensor, x: MaybeTensor, y: MaybeTensor,
    x0: MaybeTensor, a: MaybeTensor, s: MaybeTensor, b: MaybeTensor, c: float, branch: torch.dtype,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    """dx, dy, dx0, da, ds, db; empty where there is nothing to differentiate."""
    shape, d, fp32 = r.shape, r.shape[-1], torch.float32
    return (
        r.new_empty(shape), r.new_empty(0 if y is None else shape, dtype=branch),
        r.new_empty(0 if b is None else shape),
        r.new_empty(0 if a is None else d, dtype=fp32), r.new_empty(0 if s is None else d, dtype=fp32),
        r.new_empty(0 if b is None else d, dtype=fp32),
    )  # fmt: skip


_plain = define_op(
    "norm",
    "norm(Tensor x, float c, float eps, ScalarType dtype) -> (Tensor, Tensor)",
    _plain_native,
    _plain_fake,
    device=_plain_native,
)
_mixed = define_op(
    "norm",
    "norm_mix(Tensor x, Tensor? y, Tensor? x0, Tensor? a, Tensor? s, Tensor? b, float c, float eps, ScalarType dtype)"
    " -> (Tensor, Tensor, Tensor)",
    _mixed_native,
    _mixed_fake,
    device=_mixed_native,
)
_backward = define_op(
    "norm",
    "norm_backward(Tensor? dr, Tensor? dh, Tensor r, Tensor rstd, Tensor? x, Tensor? y, Tensor? x0, Tensor? a,"
    " Tensor? s, Tensor? b, float c, ScalarType branch) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _backward_native,
    _backward_fake,
    device=_backward_native,
)


def _setup_plain(ctx: Any, inputs: Any, output: Any) -> None:
    x, ctx.c, _, ctx.branch = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, output[1])


def _plain_gradient(ctx: Any, dh: MaybeTensor, _: MaybeTensor) -> tuple[Any, ...]:
    if dh is None:
        return None, None, None, None
    x, rstd_N = ctx.saved_tensors
    dx, *_ = _backward(None, dh, x, rstd_N, None, None, None, None, None, None, ctx.c, ctx.branch)
    return dx, None, None, None


def _setup_mixed(ctx: Any, inputs: Any, output: Any) -> None:
    x, y, x0, a, s, b, ctx.c, _, ctx.branch = inputs
    r, _, rstd_N = output
    ctx.set_materialize_grads(False)
    # x is read only for a's gradient, and y holds memory that nothing needs where there is neither a nor s.
    ctx.has_y = y is not None
    ctx.save_for_backward(
        x if a is not None else None, y if a is not None or s is not None else None, x0, a, s, b, r, rstd_N
    )


def _mixed_gradient(ctx: Any, dr: MaybeTensor, dh: MaybeTensor, _: MaybeTensor) -> tuple[Any, ...]:
    x, y, x0, a, s, b, r, rstd_N = ctx.saved_tensors
    if dr is None and dh is None:
        return (None,) * 9
    dx, dy, dx0, da, ds, db = _backward(dr, dh, r, rstd_N, x, y, x0, a, s, b, ctx.c, ctx.branch)
    if ctx.has_y and y is None:
        dy = dx.to(ctx.branch)  # without a and s the branch's gradient is the stream's
    return (
        dx, dy if ctx.has_y else None, dx0 if b is not None else None, da if a is not None else None,
        ds if s is not None else None, db if b is not None else None, None, None, None,
    )  # fmt: skip


register_backward(_plain, _setup_plain, _plain_gradient)
register_backward(_mixed, _setup_mixed, _mixed_gradient)
