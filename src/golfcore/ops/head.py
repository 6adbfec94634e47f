"""The language model's head: linear layer, soft-cap and cross-entropy, in chunks of tokens.

Logits exist for one chunk at a time: torch multiplies, in fp32 by oneDNN where that is faster, one native pass turns
the chunk's logits into losses and, in place, into their gradients, torch multiplies those back. The mean loss is a
scalar, so its gradients are finished in the forward pass and backward only scales them; per-token losses compute the
chunks a second time instead. On a GPU it is the same: cuBLAS, through torch, and one kernel between its products.
"""

from __future__ import annotations

from typing import Any

import torch

from golfcore.errors import InputError
from golfcore.ops import kernels, products
from golfcore.ops.arguments import check_float, check_shape
from golfcore.ops.reference.head import linear_cross_entropy as reference
from golfcore.ops.registry import DTYPE_CODE, NULL, address, core, define_op, may_look, native, register_backward

# A chunk's logits: small enough to stay in a cache between the two products, with rows enough for both. On a GPU rows
# count for more. At the contest's vocabulary of 8,192 and width of 512, 2,048 rows leave the input's gradient 64 tiles
# of 128 x 128 for the 132 multiprocessors of an H100, and half of them idle; 4,096 rows fill them, at 64 MB of logits
# in bf16, more than the 50 MB of its L2. Counted (golfcore bench roofline), not measured.
CHUNK_LOGITS, CHUNK_LOGITS_DEVICE, MIN_CHUNK = 1 << 21, 1 << 25, 512


def linear_cross_entropy(
    x: torch.Tensor, w: torch.Tensor, targets: torch.Tensor, softcap: float = 0.0, reduction: str = "mean"
) -> torch.Tensor:
    """Compute the loss of a language model's head, in nats, without ever holding all logits.

    ``-log softmax(softcap(x w^T))[targets]`` with ``softcap(z) = c tanh(z / c)``, by chunks of tokens.

    Args:
        x: hidden states [..., D], fp32 or bf16. Logits have this dtype; the softmax is computed in fp32.
        w: the output matrix [V, D], in the dtype of ``x`` or fp32; its gradient is summed in fp32 over the chunks and
            comes in the dtype of ``w``.
        targets: int64 [...], ids in 0..V-1.
        softcap: c; 0 for none.
        reduction: "mean" over all tokens, or "none".

    Returns:
        fp32, a scalar or [...].

    Raises:
        InputError: shapes or dtypes that do not fit, a target outside 0..V-1, a mean over no tokens. On a GPU, where
            looking would wait for the device, such a target gives NaN instead, unless GOLF_SYNC=1.
    """
    _check(x, w, targets, softcap, reduction)
    if not native("head", x) or w.shape[0] > core(x).head_max_vocab:
        return reference(x, w, targets, softcap, reduction)
    x_ND, targets_N = x.reshape(targets.numel(), x.shape[-1]), targets.reshape(-1)
    if reduction == "none":
        losses_N: torch.Tensor = _losses(x_ND, w, targets_N, softcap)
        return losses_N.view(targets.shape)
    grads = torch.is_grad_enabled() and (x.requires_grad or w.requires_grad)
    loss: torch.Tensor = _mean(x_ND, w, targets_N, softcap, grads)[0]
    return loss


def _check(x: torch.Tensor, w: torch.Tensor, targets: torch.Tensor, softcap: float, reduction: str) -> None:
    check_float("head", "x", x)
    if w.dtype not in (x.dtype, torch.float32) or w.device != x.device:
        raise InputError(f"head: w is {w.dtype} on {w.device}, x is {x.dtype} on {x.device}; w takes x's, or fp32")
    if w.ndim != 2 or w.shape[0] < 1 or x.ndim < 1 or x.shape[-1] != w.shape[1]:
        raise InputError(f"head: x {tuple(x.shape)} and w {tuple(w.shape)} do not fit; expected [..., D] and [V, D]")
    check_shape("head", "targets", targets, tuple(x.shape[:-1]))
    if targets.dtype != torch.int64:
        raise InputError(f"head: targets are {targets.dtype}; expected int64, as targets.long() gives")
    if not softcap >= 0:
        raise InputError(f"head: softcap = {softcap}; expected a positive number, or 0 for none")
    if reduction not in ("mean", "none"):
        raise InputError(f"head: reduction = {reduction!r}; expected 'mean' or 'none'")
    if reduction == "mean" and targets.numel() == 0:
        raise InputError("head: the mean loss of no tokens does not exist; skip the batch or use reduction='none'")


def _chunks(
    x_ND: torch.Tensor, w_VD: torch.Tensor, targets_N: torch.Tensor, softcap: float, scale_N: torch.Tensor | None,
    on_device: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """Losses [N] and, where ``scale_N`` holds the gradient of each, dx [N, D] and dw [V, D]; else empty tensors."""
    (n, _), v = x_ND.shape, w_VD.shape[0]
    if n and may_look(targets_N) and not 0 <= int(targets_N.min()) <= int(targets_N.max()) < v:
        raise InputError(f"head: targets reach from {targets_N.min()} to {targets_N.max()}; expected 0 to {v - 1}")
    size = min(max((CHUNK_LOGITS_DEVICE if on_device else CHUNK_LOGITS) // v, MIN_CHUNK), max(n, 1))
    by_onednn = not on_device and _onednn_serves(x_ND)
    chunked = (_OneDnn if by_onednn else _Torch)(x_ND, w_VD.to(x_ND.dtype), size)
    targets_N, losses_N = targets_N.contiguous(), x_ND.new_empty(n, dtype=torch.float32)
    dx_ND = x_ND.new_empty(x_ND.shape if scale_N is not None else 0)
    for begin in range(0, n, size):
        x = x_ND[begin : begin + size]
        z = chunked.logits(x)
        kernels.head_cross_entropy(
            z, dtype=DTYPE_CODE[z.dtype], z=address(z), targets=address(targets_N[begin : begin + size]),
            scale=NULL if scale_N is None else address(scale_N[begin : begin + size]),
            losses=address(losses_N[begin : begin + size]), rows=z.shape[0], vocab=v, cap=softcap,
        )  # fmt: skip
        if scale_N is not None:
            chunked.input_gradient(z, dx_ND[begin : begin + size])
            chunked.add_weight_gradient(z, x)
        del z  # before the next chunk's logits exist
    return losses_N, dx_ND, w_VD.new_empty(0) if scale_N is None else chunked.weight_gradient(w_VD)


class _Torch:
    """The chunks' products by torch.mm: logits in one buffer, dw summed in fp32."""

    def __init__(self, x_ND: torch.Tensor, w_VD: torch.Tensor, size: int) -> None:
        self._w_VD, self._chunk = w_VD, x_ND.new_empty(size, w_VD.shape[0])
        self._dw_VD: torch.Tensor | None = None

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        return products.mm(x, self._w_VD.t(), out=self._chunk[: x.shape[0]])

    def input_gradient(self, z: torch.Tensor, out: torch.Tensor) -> None:
        products.mm(z, self._w_VD, out=out)

    def add_weight_gradient(self, z: torch.Tensor, x: torch.Tensor) -> None:
        if products.leaves_fp32(x):
            if self._dw_VD is None:
                self._dw_VD = products.mm_fp32(z.t(), x)
            else:
                products.add_fp32_(self._dw_VD, z.t(), x)
        elif self._dw_VD is None:
            self._dw_VD = products.mm(z.t(), x).float()
        elif x.dtype == torch.float32:
            self._dw_VD.addmm_(z.t(), x)
        else:
            part = products.mm(z.t(), x)
            kernels.head_accumulate(part, total=address(self._dw_VD), part=address(part), n=part.numel())

    def weight_gradient(self, w_VD: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(w_VD) if self._dw_VD is None else self._dw_VD.to(w_VD.dtype)


class _OneDnn:
    """The same in fp32 by oneDNN's inner product, ``a b^T``, which torch.mm does not use for fp32.

    On an AMD EPYC with AVX-512 it multiplies at 475 GFLOP/s where torch.mm reaches 190 to 210; on Intel they are alike.
    """

    def __init__(self, x_ND: torch.Tensor, w_VD: torch.Tensor, size: int) -> None:
        self._w_VD, self._w_DV = w_VD.contiguous(), w_VD.t().contiguous()
        self._dw_DV: torch.Tensor | None = None

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        return products.inner_product(x.contiguous(), self._w_VD)

    def input_gradient(self, z: torch.Tensor, out: torch.Tensor) -> None:
        out.copy_(products.inner_product(z, self._w_DV))

    def add_weight_gradient(self, z: torch.Tensor, x: torch.Tensor) -> None:
        part = products.inner_product(x.t().contiguous(), z.t())
        self._dw_DV = part if self._dw_DV is None else self._dw_DV.add_(part)

    def weight_gradient(self, w_VD: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(w_VD) if self._dw_DV is None else self._dw_DV.t().contiguous()


def _onednn_serves(x_ND: torch.Tensor) -> bool:
    there = x_ND.dtype == torch.float32 and x_ND.shape[1] > 0 and products.route().onednn
    return there and products.has_onednn()


def _mean_on(on_device: bool) -> Any:
    def mean(x: torch.Tensor, w: torch.Tensor, targets: torch.Tensor, softcap: float, grads: bool) -> Any:
        scale_N = x.new_full((x.shape[0],), 1.0 / x.shape[0], dtype=torch.float32) if grads else None
        losses_N, dx, dw = _chunks(x, w, targets, softcap, scale_N, on_device)
        return losses_N.mean(), dx, dw

    return mean


def _mean_fake(x: torch.Tensor, w: torch.Tensor, targets: torch.Tensor, softcap: float, grads: bool) -> Any:
    dx, dw = (x.new_empty(x.shape), w.new_empty(w.shape)) if grads else (x.new_empty(0), w.new_empty(0))
    return x.new_empty((), dtype=torch.float32), dx, dw


_mean = define_op(
    "head",
    "head(Tensor x, Tensor w, Tensor targets, float softcap, bool grads) -> (Tensor, Tensor, Tensor)",
    _mean_on(False),
    _mean_fake,
    device=_mean_on(True),
)


def _mean_setup(ctx: Any, inputs: Any, output: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output[1:])


def _mean_gradient(ctx: Any, dloss: torch.Tensor | None, *_: Any) -> Any:
    if dloss is None:
        return None, None, None, None, None
    dx, dw = ctx.saved_tensors
    return dx * dloss, dw * dloss, None, None, None  # a 0-d factor keeps its fp32, and their dtype


register_backward(_mean, _mean_setup, _mean_gradient)


def _losses_on(on_device: bool) -> Any:
    return lambda x, w, targets, softcap: _chunks(x, w, targets, softcap, None, on_device)[0]


def _losses_backward_on(on_device: bool) -> Any:
    return lambda x, w, targets, dlosses, softcap: _chunks(x, w, targets, softcap, dlosses.contiguous(), on_device)[1:]


_losses = define_op(
    "head",
    "head_losses(Tensor x, Tensor w, Tensor targets, float softcap) -> Tensor",
    _losses_on(False),
    lambda x, w, targets, softcap: x.new_empty(x.shape[:1], dtype=torch.float32),
    device=_losses_on(True),
)
_losses_backward = define_op(
    "head",
    "head_losses_backward(Tensor x, Tensor w, Tensor targets, Tensor dlosses, float softcap) -> (Tensor, Tensor)",
    _losses_backward_on(False),
    lambda x, w, targets, dlosses, softcap: (x.new_empty(x.shape), w.new_empty(w.shape)),
    device=_losses_backward_on(True),
)


def _losses_setup(ctx: Any, inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor, float], output: Any) -> None:
    *tensors, ctx.softcap = inputs
    ctx.save_for_backward(*tensors)


def _losses_gradient(ctx: Any, dlosses: torch.Tensor) -> Any:
    x, w, targets = ctx.saved_tensors
    return *_losses_backward(x, w, targets, dlosses, ctx.softcap), None, None


register_backward(_losses, _losses_setup, _losses_gradient)
