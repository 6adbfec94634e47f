"""Causal attention with grouped heads, packed documents, sliding window, XSA and output gate."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from golfcore import _core
from golfcore.errors import InputError
from golfcore.ops import attention_backends, kernels
from golfcore.ops.arguments import check_float, check_same, check_shape, maybe_contiguous
from golfcore.ops.reference.attention import attention as reference
from golfcore.ops.registry import DTYPE_CODE, NULL, address, define_op, native, register_backward, threads

WIDTHS = (32, 64, 128)  # of a head, as csrc/attention serves them; narrower heads are padded with zeros

MaybeTensor = torch.Tensor | None


def attention(
    q_BTNH: torch.Tensor,
    k_BTKH: torch.Tensor,
    v_BTKH: torch.Tensor,
    gate_BTN: MaybeTensor = None,
    cu_seqlens: MaybeTensor = None,
    window: int = 0,
    scale: float | None = None,
    xsa: bool = False,
    longest: int = 0,
) -> torch.Tensor:
    """Compute causal attention with grouped heads, packed documents, sliding window, XSA and output gate.

    ``y_t = gate_t (o_t - (o_t . u_t) u_t)`` with ``o`` the causal attention and ``u = v / |v|``; without ``xsa`` the
    second term is left out, without ``gate_BTN`` the factor. Query head ``n`` reads key/value head ``n // (N / K)``.
    Memory grows with T, never with T x T. The reference, whose memory does, serves heads wider than 128 and, on a GPU,
    what is not bf16.

    Args:
        q_BTNH: [B, T, N, H] float, any strides; views with a contiguous last dimension are read in place.
        k_BTKH: [B, T, K, H], same dtype, ``N`` a multiple of ``K``.
        v_BTKH: the same.
        gate_BTN: [B, T, N], dtype of q or fp32: a factor for each token and head; absent: 1.
        cu_seqlens: int32 [documents + 1], from 0 to T without falling, with B = 1: tokens
            ``cu_seqlens[s] : cu_seqlens[s + 1]`` see only each other; absent: each row of the batch is a document. On a
            GPU its numbers are not checked, for which the processor would have to wait: wrong ones give a wrong result.
        window: how many keys a query sees at most, its own included; 0: all.
        scale: of the scores; absent: ``H ** -0.5``.
        xsa: exclusive self-attention: the component along the token's own value is taken out.
        longest: tokens that no document of ``cu_seqlens`` exceeds; 0: T. FlashAttention-3 launches blocks for as many.

    Returns:
        [B, T, N, H] in the dtype of q, contiguous.

    Raises:
        InputError: a tensor of another shape, dtype or device than the above, a negative window, or a scale that is
            not a positive number.
    """
    _check(q_BTNH, k_BTKH, v_BTKH, gate_BTN, cu_seqlens, window, scale)
    served_BTNH = attention_backends.serve(q_BTNH, k_BTKH, v_BTKH, cu_seqlens, window, scale, longest)
    if served_BTNH is not None:
        return attention_backends.finish(served_BTNH, v_BTKH, gate_BTN, xsa)
    width = q_BTNH.shape[3]
    if not native("attention", q_BTNH) or width > WIDTHS[-1]:
        return reference(q_BTNH, k_BTKH, v_BTKH, gate_BTN, cu_seqlens, window, scale, xsa)
    scale = width**-0.5 if scale is None else scale
    served = next(w for w in WIDTHS if width <= w)
    if served != width:
        q_BTNH, k_BTKH, v_BTKH = (F.pad(x, (0, served - width)) for x in (q_BTNH, k_BTKH, v_BTKH))
    y: torch.Tensor = _leaf(q_BTNH, k_BTKH, v_BTKH, gate_BTN, cu_seqlens, window, scale, xsa)[0]
    return y if served == width else y[..., :width].contiguous()


def _check(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, gate: MaybeTensor, cu_seqlens: MaybeTensor, window: int,
    scale: float | None,
) -> None:  # fmt: skip
    check_float("attention", "q", q)
    if q.ndim != 4 or k.ndim != 4 or q.shape[:2] != k.shape[:2] or q.shape[3] != k.shape[3] or q.shape[3] == 0:
        raise InputError(
            f"attention: q has shape {tuple(q.shape)}, k {tuple(k.shape)}; expected [B, T, N, H] and [B, T, K, H] with "
            "the same B, T and H of 1 or more"
        )
    if k.shape[2] == 0 or q.shape[2] == 0 or q.shape[2] % k.shape[2]:
        raise InputError(f"attention: q has {q.shape[2]} heads, k {k.shape[2]}; expected a multiple")
    check_shape("attention", "v", v, tuple(k.shape))
    check_same("attention", "k", k, "q", q)
    check_same("attention", "v", v, "q", q)
    if gate is not None:
        check_shape("attention", "gate", gate, tuple(q.shape[:3]))
        check_same("attention", "gate", gate, "q", q, dtype=torch.float32 if gate.dtype == torch.float32 else None)
    if cu_seqlens is not None and (cu_seqlens.ndim != 1 or cu_seqlens.dtype != torch.int32 or q.shape[0] != 1):
        raise InputError(
            f"attention: cu_seqlens is {cu_seqlens.dtype} {tuple(cu_seqlens.shape)} with B = {q.shape[0]}; expected "
            "int32 [documents + 1] with B = 1: flatten the batch into one row"
        )
    if cu_seqlens is not None:
        check_same("attention", "cu_seqlens", cu_seqlens, "q", q, dtype=torch.int32)
    if window < 0:
        raise InputError(f"attention: window = {window}; expected a number of keys, or 0 for all")
    if scale is not None and not 0 < scale < math.inf:
        raise InputError(f"attention: scale = {scale}; expected a positive number")


def _readable(x: torch.Tensor) -> torch.Tensor:
    return x if x.stride(3) == 1 else x.contiguous()


def _in_packs(x: torch.Tensor) -> torch.Tensor:
    """``x`` with rows that begin at multiples of 16 bytes, as the kernels for GPUs read them."""
    at = [step * x.element_size() for size, step in zip(x.shape[:3], x.stride()[:3], strict=True) if size > 1]
    if x.stride(3) == 1 and x.data_ptr() % 16 == 0 and all(step % 16 == 0 for step in at):
        return x
    return x.clone(memory_format=torch.contiguous_format)


def _sizes(q: torch.Tensor, k: torch.Tensor, cu_seqlens: MaybeTensor, window: int) -> kernels.AttentionSizes:
    batch, tokens, heads, head_dim = q.shape
    documents, longest = batch, tokens
    if cu_seqlens is not None:
        documents = cu_seqlens.numel() - 1
        if not cu_seqlens.is_cuda or documents <= 0:  # on a GPU a look at the numbers would make the processor wait
            longest = _longest(cu_seqlens, documents, tokens)
    return batch, tokens, heads, k.shape[2], head_dim, window, documents, longest


def _longest(cu_seqlens: torch.Tensor, documents: int, tokens: int) -> int:
    longest = _core.attention_longest(cu_seqlens.data_ptr(), documents, tokens) if documents >= 0 else -1
    if longest < 0:
        raise InputError(
            f"attention: cu_seqlens = {cu_seqlens[:8].tolist()}...; expected numbers that never fall, from 0 to "
            f"T = {tokens}"
        )
    return longest


def _scratch(begin: kernels.AttentionCall, *, backward: bool) -> torch.Tensor:
    """Working memory of every thread; torch aligns CPU tensors to 64 bytes."""
    each = _core.attention_scratch_bytes(begin.dtype, begin.sizes, begin.options[1], backward)
    return torch.empty(threads() * each, dtype=torch.uint8, device="cpu")


def _prepared(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, gate: MaybeTensor, cu_seqlens: MaybeTensor, window: int,
    scale: float, xsa: bool, readable: Callable[[torch.Tensor], torch.Tensor],
) -> tuple[kernels.AttentionCall, tuple[MaybeTensor, ...]]:  # fmt: skip
    """What every native function begins with, and the tensors whose addresses are in it: they must outlive the call."""
    q, k, v = readable(q), readable(k), readable(v)
    gate, cu_seqlens = maybe_contiguous(gate), maybe_contiguous(cu_seqlens)
    dtype, gate_dtype = DTYPE_CODE[q.dtype], 0 if gate is None else DTYPE_CODE[gate.dtype]
    sizes, options = _sizes(q, k, cu_seqlens, window), (scale, xsa)
    inputs = address(q), address(k), address(v), address(gate), address(cu_seqlens)
    strides = (*q.stride()[:3], *k.stride()[:3], *v.stride()[:3])
    begin = kernels.AttentionCall(dtype, gate_dtype, sizes, inputs, strides, options)
    return begin, (q, k, v, gate, cu_seqlens)


def _forward(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, gate: MaybeTensor, cu_seqlens: MaybeTensor, window: int,
    scale: float, xsa: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    y, out, lse = _fake(q, k, v, gate, cu_seqlens, window, scale, xsa)
    if y.numel() == 0:
        return y, out, lse
    begin, _tensors = _prepared(q, k, v, gate, cu_seqlens, window, scale, xsa, _readable)
    scratch = _scratch(begin, backward=False)
    kernels.attention_forward(begin, out=address(out), y=address(y), lse=address(lse), scratch=address(scratch))
    return y, out, lse


def _forward_device(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, gate: MaybeTensor, cu_seqlens: MaybeTensor, window: int,
    scale: float, xsa: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    y, out, lse = _fake(q, k, v, gate, cu_seqlens, window, scale, xsa)
    if y.numel():
        begin, _tensors = _prepared(q, k, v, gate, cu_seqlens, window, scale, xsa, _in_packs)
        kernels.attention_forward_device(q, begin, out=address(out), y=address(y), lse=address(lse))
    return y, out, lse


def _fake(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, gate: MaybeTensor, cu_seqlens: MaybeTensor, window: int,
    scale: float, xsa: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """The result, what precedes xsa and gate (empty where there is neither), and the softmax's log-denominators."""
    b, t, n, _ = q.shape
    between = xsa or gate is not None
    return q.new_empty(q.shape), q.new_empty(q.shape if between else (0,)), q.new_empty((n, b * t), dtype=torch.float32)


def _backward(
    dy: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, gate: MaybeTensor, cu_seqlens: MaybeTensor,
    out: torch.Tensor, lse: torch.Tensor, window: int, scale: float, xsa: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    dq, dk, dv, dgate = _backward_fake(dy, q, k, v, gate, cu_seqlens, out, lse, window, scale, xsa)
    if dq.numel() == 0:
        return dq, dk, dv, dgate
    dy = dy.contiguous()
    begin, _tensors = _prepared(q, k, v, gate, cu_seqlens, window, scale, xsa, _readable)
    scratch = _scratch(begin, backward=True)
    kernels.attention_backward(
        begin, out=address(out), lse=address(lse), dy=address(dy), dq=address(dq), dk=address(dk), dv=address(dv),
        dgate=NULL if gate is None else address(dgate), scratch=address(scratch),
    )  # fmt: skip
    return dq, dk, dv, dgate


def _backward_device(
    dy: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, gate: MaybeTensor, cu_seqlens: MaybeTensor,
    out: torch.Tensor, lse: torch.Tensor, window: int, scale: float, xsa: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    dq, dk, dv, dgate = _backward_fake(dy, q, k, v, gate, cu_seqlens, out, lse, window, scale, xsa)
    if dq.numel() == 0:
        return dq, dk, dv, dgate
    b, t, n, _ = q.shape
    dy, out = _in_packs(dy.contiguous()), _in_packs(out)
    begin, _tensors = _prepared(q, k, v, gate, cu_seqlens, window, scale, xsa, _in_packs)
    dout = torch.empty_like(dy) if xsa or gate is not None else None  # else it is dy
    row_sums = lse.new_empty(n, b, 2, (t + 3) // 4 * 4)
    kernels.attention_backward_device(
        q, begin, out=address(out), lse=address(lse), dy=address(dy), dq=address(dq), dk=address(dk), dv=address(dv),
        dgate=NULL if gate is None else address(dgate), dout=address(dout), row_sums=address(row_sums),
    )  # fmt: skip
    return dq, dk, dv, dgate


def _backward_fake(
    dy: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, gate: MaybeTensor, cu_seqlens: MaybeTensor,
    out: torch.Tensor, lse: torch.Tensor, window: int, scale: float, xsa: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    dgate = q.new_empty(0) if gate is None else gate.new_empty(gate.shape)
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape), dgate


_leaf = define_op(
    "attention",
    "attention(Tensor q, Tensor k, Tensor v, Tensor? gate, Tensor? cu_seqlens, int window, float scale, bool xsa)"
    " -> (Tensor, Tensor, Tensor)",
    _forward,
    _fake,
    _forward_device,
    (torch.bfloat16,),
)
_leaf_backward = define_op(
    "attention",
    "attention_backward(Tensor dy, Tensor q, Tensor k, Tensor v, Tensor? gate, Tensor? cu_seqlens, Tensor out,"
    " Tensor lse, int window, float scale, bool xsa) -> (Tensor, Tensor, Tensor, Tensor)",
    _backward,
    _backward_fake,
    _backward_device,
    (torch.bfloat16,),
)


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    q, k, v, gate, cu_seqlens, ctx.window, ctx.scale, ctx.xsa = inputs
    y, out, lse = output
    ctx.mark_non_differentiable(out, lse)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(q, k, v, gate, cu_seqlens, out if ctx.xsa or gate is not None else y, lse)


def _gradient(ctx: Any, dy: MaybeTensor, *_: Any) -> tuple[Any, ...]:
    if dy is None:
        return (None,) * 8
    q, k, v, gate, cu_seqlens, out, lse = ctx.saved_tensors
    dq, dk, dv, dgate = _leaf_backward(dy, q, k, v, gate, cu_seqlens, out, lse, ctx.window, ctx.scale, ctx.xsa)
    return dq, dk, dv, None if gate is None else dgate, None, None, None, None


register_backward(_leaf, _setup, _gradient)
