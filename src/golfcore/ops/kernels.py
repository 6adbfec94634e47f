"""The native functions by name: each calls its namesake in the module that serves ``like`` (``registry.call``).

Arguments cross to C++ by place, so that order is written down here alone: it is that of ``csrc/bindings/<op>.cpp``, of
``_core.pyi`` and of ``_device.pyi``, and tests/ops/test_border.py compares them. ``Address`` keeps a size from taking
an address' place; ``NULL`` stands for an absent tensor. What an argument is, ``csrc/<op>/<op>.h`` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from golfcore import _core
from golfcore.ops.registry import DTYPE_CODE, NULL, Address, address, call, threads

Tensor = torch.Tensor
Tensors = Sequence[torch.Tensor]


def activation_forward(like: Tensor, *, dtype: int, u: Address, y: Address, n: int, slope: float) -> None:
    call(like, "activation_forward", dtype, u, y, n, slope)


def activation_backward(
    like: Tensor, *, dtype: int, u: Address, dy: Address, du: Address, n: int, slope: float
) -> None:
    call(like, "activation_backward", dtype, u, dy, du, n, slope)


# batch, tokens, heads, kv_heads, head_dim, window, documents, longest. No NamedTuple: pybind11 reads it more slowly.
AttentionSizes = tuple[int, int, int, int, int, int, int, int]


class AttentionCall(NamedTuple):
    """The arguments with which every function of attention begins."""

    dtype: int
    gate_dtype: int
    sizes: AttentionSizes
    inputs: tuple[Address, Address, Address, Address, Address]  # q, k, v, gate, cu_seqlens
    strides: tuple[int, ...]  # of batch, token and head: those of q, of k and of v
    options: tuple[float, bool]  # scale, xsa


def attention_forward(begin: AttentionCall, *, out: Address, y: Address, lse: Address, scratch: Address) -> None:
    _core.attention_forward(*begin, out, y, lse, scratch, threads())


def attention_backward(
    begin: AttentionCall, *, out: Address, lse: Address, dy: Address, dq: Address, dk: Address, dv: Address,
    dgate: Address, scratch: Address,
) -> None:  # fmt: skip
    _core.attention_backward(*begin, out, lse, dy, dq, dk, dv, dgate, scratch, threads())


def attention_forward_device(like: Tensor, begin: AttentionCall, *, out: Address, y: Address, lse: Address) -> None:
    call(like, "attention_forward", *begin, out, y, lse)


def attention_backward_device(
    like: Tensor, begin: AttentionCall, *, out: Address, lse: Address, dy: Address, dq: Address, dk: Address,
    dv: Address, dgate: Address, dout: Address, row_sums: Address,
) -> None:  # fmt: skip
    call(like, "attention_backward", *begin, out, lse, dy, dq, dk, dv, dgate, dout, row_sums)


def bitpack_pack(like: Tensor, *, q: Address, bits: int, rows: int, columns: int, data: Address) -> None:
    call(like, "bitpack_pack", q, bits, rows, columns, data)


class PackedMatrix(NamedTuple):
    """A matrix as ``csrc/bitpack`` reads it: where it lies, and (bits, rows, columns, group)."""

    data_and_scales: tuple[Address, Address]
    sizes: tuple[int, int, int, int]


def packed_matrix(*, data: Address, scales: Address, bits: int, rows: int, columns: int, group: int) -> PackedMatrix:
    return PackedMatrix((data, scales), (bits, rows, columns, group))


def bitpack_unpack(like: Tensor, matrix: PackedMatrix, *, q: Address) -> None:
    call(like, "bitpack_unpack", *matrix, q)


def bitpack_dequantize(like: Tensor, matrix: PackedMatrix, *, dtype: int, w: Address) -> None:
    call(like, "bitpack_dequantize", *matrix, dtype, w)


def bitpack_fake_quantize(
    like: Tensor, *, dtype: int, w: Address, scales: Address, y: Address, bits: int, rows: int, columns: int, group: int
) -> None:
    call(like, "bitpack_fake_quantize", dtype, w, scales, y, (bits, rows, columns, group))


def bitpack_product(
    like: Tensor, matrix: PackedMatrix, *, dtype: int, x: Address, y: Address, batch: int, prepared: Address
) -> None:
    call(like, "bitpack_product", *matrix, dtype, x, y, batch, prepared)


def bitpack_product_device(
    like: Tensor, matrix: PackedMatrix, *, dtype: int, x: Address, y: Address, batch: int
) -> None:
    call(like, "bitpack_product", *matrix, dtype, x, y, batch)


class EmbedInput(NamedTuple):
    """(ids, table, bigram, its scale, w, lambda) and (tokens, length, width, vocab, slots, smear, bos)."""

    addresses: tuple[Address, ...]
    sizes: tuple[int, ...]


def embed_input(
    *, ids: Address, table: Address, bigram: Address, bigram_scale: Address, w: Address, lam: Address, tokens: int,
    length: int, width: int, vocab: int, slots: int, smear: int, bos: int,
) -> EmbedInput:  # fmt: skip
    return EmbedInput(
        (ids, table, bigram, bigram_scale, w, lam), (tokens, length, width, vocab, slots, smear, bos)
    )  # fmt: skip


def embed_forward(like: Tensor, given: EmbedInput, *, dtype: int, x: Address, place: Address) -> None:
    call(like, "embed_forward", *given, dtype, x, place)


def embed_backward(
    like: Tensor, given: EmbedInput, *, dtype: int, dx: Address, place: Address, dtable: Address, dbigram: Address,
    dscalars: Address, de: Address, partial: Address, order: Address,
) -> None:  # fmt: skip
    call(
        like, "embed_backward", *given, dtype, dx, place, (dtable, dbigram, dscalars), (de, partial, order)
    )  # fmt: skip


def embed_backward_device(
    like: Tensor, given: EmbedInput, *, dtype: int, dx: Address, place: Address, dtable: Address, dbigram: Address,
    dscalars: Address, ids_sorted: Address, tokens_by_id: Address, slots_sorted: Address, tokens_by_slot: Address,
    factors: Address, partials: Address, edges: Address,
) -> None:  # fmt: skip
    call(
        like, "embed_backward", *given, dtype, dx, place, (dtable, dbigram, dscalars), (ids_sorted, tokens_by_id),
        (slots_sorted, tokens_by_slot), (factors, partials, edges),
    )  # fmt: skip


def head_cross_entropy(
    like: Tensor, *, dtype: int, z: Address, targets: Address, scale: Address, losses: Address, rows: int, vocab: int,
    cap: float,
) -> None:  # fmt: skip
    call(like, "head_cross_entropy", dtype, z, targets, scale, losses, rows, vocab, cap)


def head_accumulate(like: Tensor, *, total: Address, part: Address, n: int) -> None:
    call(like, "head_accumulate", total, part, n)


def norm_forward(
    like: Tensor, *, dtype: int, branch_dtype: int, x: Address, y: Address = NULL, x0: Address = NULL,
    a: Address = NULL, s: Address = NULL, b: Address = NULL, r: Address = NULL, h: Address = NULL,
    rstd: Address = NULL, n: int, d: int, x_stride: int, y_stride: int = 0, x0_stride: int = 0, c: float = 1.0,
    eps: float = 0.0,
) -> None:  # fmt: skip
    call(like, "norm_forward", dtype, branch_dtype, x, y, x0, a, s, b, r, h, rstd, n, d, x_stride, y_stride,
         x0_stride, c, eps)  # fmt: skip


def norm_backward(
    like: Tensor, *, dtype: int, branch_dtype: int, dr: Address = NULL, dh: Address = NULL, r: Address = NULL,
    rstd: Address = NULL, x: Address = NULL, y: Address = NULL, x0: Address = NULL, a: Address = NULL,
    s: Address = NULL, b: Address = NULL, dx: Address = NULL, dy: Address = NULL, dx0: Address = NULL,
    da: Address = NULL, ds: Address = NULL, db: Address = NULL, partials: Address = NULL, n: int, d: int,
    dr_stride: int = 0, dh_stride: int = 0, r_stride: int = 0, x_stride: int = 0, y_stride: int = 0,
    x0_stride: int = 0, c: float = 1.0,
) -> None:  # fmt: skip
    call(like, "norm_backward", dtype, branch_dtype, dr, dh, r, rstd, x, y, x0, a, s, b, dx, dy, dx0, da, ds, db,
         partials, n, d, dr_stride, dh_stride, r_stride, x_stride, y_stride, x0_stride, c)  # fmt: skip


def qk_forward(
    like: Tensor, *, dtype: int, q: Address, k: Address, q_out: Address, k_out: Address, cos: Address, sin: Address,
    positions: Address, gain: Address, tokens: int, length: int, q_heads: int, k_heads: int, head_dim: int, half: int,
    q_stride: int, k_stride: int, eps: float,
) -> None:  # fmt: skip
    call(like, "qk_forward", dtype, q, k, q_out, k_out, cos, sin, positions, gain, tokens, length, q_heads, k_heads,
         head_dim, half, q_stride, k_stride, eps)  # fmt: skip


def qk_backward(
    like: Tensor, *, dtype: int, q: Address, k: Address, dq_out: Address, dk_out: Address, dq: Address, dk: Address,
    cos: Address, sin: Address, positions: Address, gain: Address, dgain: Address, partials: Address, tokens: int,
    length: int, q_heads: int, k_heads: int, head_dim: int, half: int, q_stride: int, k_stride: int,
    dq_out_stride: int, dk_out_stride: int, eps: float,
) -> None:  # fmt: skip
    call(like, "qk_backward", dtype, q, k, dq_out, dk_out, dq, dk, cos, sin, positions, gain, dgain, partials, tokens,
         length, q_heads, k_heads, head_dim, half, q_stride, k_stride, dq_out_stride, dk_out_stride, eps)  # fmt: skip


OptimRow = tuple[Address, Address, Address, Address, Address, Address, int, float, float, int]


def optim_rows(
    *, p: Tensors = (), g: Tensors = (), m: Tensors = (), v: Tensors = (), ema: Tensors = (), shadow: Tensors = (),
    lr: Sequence[float] = (), weight_decay: Sequence[float] = (),
) -> list[OptimRow]:  # fmt: skip
    """Return one row per tensor of an optimizer step; an absent list leaves its column 0. ``p`` or ``m`` is there."""
    sizes = [t.numel() for t in p or m]
    null, zero = [NULL] * len(sizes), [0.0] * len(sizes)

    def at(tensors: Tensors) -> list[Address]:
        return [address(t) for t in tensors] if tensors else null

    g_dtypes = [DTYPE_CODE[t.dtype] for t in g] if g else [0] * len(sizes)
    return list(
        zip(at(p), at(g), at(m), at(v), at(ema), at(shadow), sizes, lr or zero, weight_decay or zero, g_dtypes,
            strict=True)
    )  # fmt: skip


def adamw_step(
    like: Tensor, rows: list[OptimRow], *, beta1: float, beta2: float, eps: float, grad_scale: float, ema_rate: float,
    bias1: float, bias2: float,
) -> None:  # fmt: skip
    call(like, "adamw_step", rows, beta1, beta2, eps, grad_scale, ema_rate, bias1, bias2)


def muon_momentum(
    like: Tensor, matrices: list[OptimRow], *, rows: int, columns: int, momentum: float, row_norm: bool, eps: float,
    bank_dtype: int, bank: Address, norms: Address,
) -> None:  # fmt: skip
    call(like, "muon_momentum", matrices, rows, columns, momentum, row_norm, eps, bank_dtype, bank, norms)


def muon_apply(
    like: Tensor, rows: list[OptimRow], *, update_dtype: int, update: Address, factor: float, ema_rate: float
) -> None:
    call(like, "muon_apply", rows, update_dtype, update, factor, ema_rate)


def newton_schulz_polynomial(
    *, dtype: int, x: Address, square: Address, out: Address, shape: Sequence[int], strides: Sequence[int],
    coefficients: Sequence[float], packed: Address,
) -> None:  # fmt: skip
    _core.newton_schulz_polynomial(dtype, x, square, out, shape, strides, coefficients, packed, threads())


def quant_columns(
    *, wanted: Address, feedback: Address, step: Address, shrink: Address, symbols: Address, error: Address,
    workspace: Address, columns: int, rows: int, ranges: Sequence[int], limit: int, weight: float, bits: int,
    mask: Sequence[int],
) -> None:  # fmt: skip
    _core.quant_columns((wanted, feedback, step, shrink, symbols, error, workspace), (columns, rows), ranges, limit,
                        weight, bits, mask, threads())  # fmt: skip
