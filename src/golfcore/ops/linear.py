"""Linear layers: torch's products, as one node of the graph for all the layers that read the same input.

What autograd would do between the products falls away: the input's gradient is summed inside them instead of by
additions of its own, and weights are cast once for both directions. There is nothing but products and casts, so torch
serves GPUs in the same way.
"""

from __future__ import annotations

from typing import Any

import torch

from golfcore.errors import InputError
from golfcore.ops import products
from golfcore.ops.arguments import check_float, check_shape, rows
from golfcore.ops.bitpack import PackedWeight
from golfcore.ops.reference.linear import linear as reference
from golfcore.ops.registry import define_op, native, register_backward

MaybeTensor = torch.Tensor | None
MOST = 3  # queries, keys and values


def linear(x: torch.Tensor, *weights_OI: torch.Tensor | PackedWeight) -> tuple[torch.Tensor, ...]:
    """Multiply by up to three weight matrices that share their input: ``y = x W^T`` for each.

    Args:
        x: [..., I] float.
        weights_OI: [O, I] each, in the dtype of ``x`` or fp32; cast to that of ``x`` for the products. Their gradients
            come in their own dtype. A ``bitpack.PackedWeight`` is multiplied as it is packed, without a gradient.

    Returns:
        [..., O] for each weight, in the dtype of ``x``.

    Raises:
        InputError: no weight, more than three, or a tensor of another shape, dtype or device than the above.
    """
    tensors = tuple(w for w in weights_OI if isinstance(w, torch.Tensor))
    if len(tensors) < len(weights_OI):
        return tuple(w.product(x) if isinstance(w, PackedWeight) else linear(x, w)[0] for w in weights_OI)
    _check(x, tensors)
    if not native("linear", x):
        return reference(x, *tensors)
    given = (*tensors, None, None)[:MOST]
    outputs = _leaf(x, *given)
    return tuple(outputs[: len(tensors)])


def _check(x: torch.Tensor, weights: tuple[torch.Tensor, ...]) -> None:
    check_float("linear", "x", x)
    if not 1 <= len(weights) <= MOST or x.ndim == 0:
        raise InputError(
            f"linear: {len(weights)} weights for x of shape {tuple(x.shape)}; expected [..., I] and 1 to 3"
        )
    for i, w in enumerate(weights):
        if w.ndim != 2:
            raise InputError(f"linear: weights[{i}] has shape {tuple(w.shape)}; expected [O, {x.shape[-1]}]")
        check_shape("linear", f"weights[{i}]", w, (w.shape[0], x.shape[-1]))
        if w.dtype not in (x.dtype, torch.float32) or w.dtype != weights[0].dtype or w.device != x.device:
            raise InputError(
                f"linear: weights[{i}] is {w.dtype} on {w.device}, x is {x.dtype} on {x.device}; it takes x's dtype or "
                "fp32, and all weights the same"
            )


def _forward(
    x: torch.Tensor, w: torch.Tensor, w2: MaybeTensor, w3: MaybeTensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    *outputs, cast = _fake(x, w, w2, w3)
    x_NI, begin = rows(x), 0
    for y, weight in zip(outputs, (w, w2, w3), strict=True):
        if weight is None:
            continue
        cast_OI = cast[begin : begin + weight.shape[0]]
        cast_OI.copy_(weight)
        products.mm(x_NI, cast_OI.t(), out=y.view(-1, weight.shape[0]))
        begin += weight.shape[0]
    return outputs[0], outputs[1], outputs[2], cast


def _fake(
    x: torch.Tensor, w: torch.Tensor, w2: MaybeTensor, w3: MaybeTensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A result for each weight (empty where it is absent), and the weights in the dtype of x under each other."""
    widths = [0 if weight is None else weight.shape[0] for weight in (w, w2, w3)]
    y, y2, y3 = (
        x.new_empty(0 if weight is None else (*x.shape[:-1], width))
        for weight, width in zip((w, w2, w3), widths, strict=True)
    )
    return y, y2, y3, x.new_empty(sum(widths), x.shape[-1])


def _backward(
    x: torch.Tensor, cast: torch.Tensor, widths: list[int], dtype: torch.dtype, need_dx: bool,
    dy: MaybeTensor, dy2: MaybeTensor, dy3: MaybeTensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    x_NI, begin = rows(x), 0
    dx, *dws = _backward_fake(x, cast, widths, dtype, need_dx, dy, dy2, dy3)
    dx_NI, is_first = rows(dx), True
    for dw_OI, width, gradient in zip(dws, widths, (dy, dy2, dy3), strict=True):
        cast_OI, begin = cast[begin : begin + width], begin + width
        if gradient is None:
            continue
        dy_NO = rows(gradient)
        if need_dx:
            if is_first:
                products.mm(dy_NO, cast_OI, out=dx_NI)
            else:
                products.addmm_(dx_NI, dy_NO, cast_OI)
            is_first = False
        _weight_gradient(x_NI, dy_NO, dw_OI)
    return dx, dws[0], dws[1], dws[2]


def _weight_gradient(x_NI: torch.Tensor, dy_NO: torch.Tensor, dw_OI: torch.Tensor) -> None:
    if dw_OI.dtype == torch.float32 and products.leaves_fp32(x_NI):
        products.mm_fp32(dy_NO.t(), x_NI, out=dw_OI)
    else:
        dw_OI.copy_(products.mm(dy_NO.t(), x_NI))


def _backward_fake(
    x: torch.Tensor, cast: torch.Tensor, widths: list[int], dtype: torch.dtype, need_dx: bool,
    dy: MaybeTensor, dy2: MaybeTensor, dy3: MaybeTensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """dx, empty where it is not needed, and a gradient for each result that has one."""
    dws = [
        x.new_empty(0 if gradient is None else (width, x.shape[-1]), dtype=dtype)
        for gradient, width in zip((dy, dy2, dy3), widths, strict=True)
    ]
    return x.new_empty(x.shape if need_dx else 0), dws[0], dws[1], dws[2]


_leaf = define_op(
    "linear",
    "linear(Tensor x, Tensor w, Tensor? w2, Tensor? w3) -> (Tensor, Tensor, Tensor, Tensor)",
    _forward,
    _fake,
    device=_forward,
)
_leaf_backward = define_op(
    "linear",
    "linear_backward(Tensor x, Tensor cast, int[] widths, ScalarType dtype, bool need_dx, Tensor? dy, Tensor? dy2,"
    " Tensor? dy3) -> (Tensor, Tensor, Tensor, Tensor)",
    _backward,
    _backward_fake,
    device=_backward,
)


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    x, *weights = inputs
    ctx.widths = [0 if w is None else w.shape[0] for w in weights]
    ctx.dtype = weights[0].dtype
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[3])
    ctx.save_for_backward(x, output[3])


def _gradient(ctx: Any, *dys: MaybeTensor) -> tuple[MaybeTensor, ...]:
    x, cast = ctx.saved_tensors
    given = [dy if width else None for dy, width in zip(dys[:MOST], ctx.widths, strict=True)]
    if all(dy is None for dy in given):
        return (None,) * (1 + MOST)
    need_dx = ctx.needs_input_grad[0]
    dx, *dws = _leaf_backward(x, cast, ctx.widths, ctx.dtype, need_dx, *given)
    return dx if need_dx else None, *(None if dy is None else dw for dy, dw in zip(given, dws, strict=True))


register_backward(_leaf, _setup, _gradient)
