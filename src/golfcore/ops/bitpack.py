"""Weights in a few bits, for kernels that read them packed: pack, unpack, dequantize, fake-quantize, products.

Formats are "int2" to "int8" (codes in -2^(b-1) .. 2^(b-1) - 1) and "ternary" (-1, 0, 1; five to a byte). A matrix is
its packed bytes [O, row bytes] and fp32 scales [O, G], one for each ``group`` of columns; without it one per row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from golfcore import _core
from golfcore.errors import InputError
from golfcore.ops import kernels, products
from golfcore.ops.arguments import check_float, check_shape
from golfcore.ops.reference import bitpack as reference
from golfcore.ops.reference.bitpack import FORMATS
from golfcore.ops.registry import DTYPE_CODE, NULL, address, define_op, native, register_backward


def pack(q_OI: torch.Tensor, fmt: str) -> torch.Tensor:
    """Pack integer codes into bytes, row by row.

    Args:
        q_OI: int8 [O, I].
        fmt: "int2" .. "int8" or "ternary".

    Returns:
        uint8 [O, ``row_bytes(fmt, I)``].

    Raises:
        InputError: not an int8 matrix, an unknown format, or a code outside its range.
    """
    bits = _bits(fmt)
    if q_OI.dtype != torch.int8 or q_OI.ndim != 2 or not q_OI.shape[1]:
        raise InputError(f"bitpack: q is {q_OI.dtype} {tuple(q_OI.shape)}; expected int8 [O, I]")
    low, high = (-1, 1) if bits == 0 else (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    if q_OI.numel() and not low <= int(q_OI.min()) <= int(q_OI.max()) <= high:
        raise InputError(f"bitpack: codes reach from {q_OI.min()} to {q_OI.max()}; {fmt} holds {low} to {high}")
    if not _served(q_OI):
        return reference.pack(q_OI, fmt)
    result: torch.Tensor = _pack(q_OI, bits)
    return result


def unpack(packed: torch.Tensor, fmt: str, columns: int) -> torch.Tensor:
    """Unpack bytes to the int8 codes [O, columns] that ``pack`` was given.

    Raises:
        InputError: ``packed`` is not what ``pack`` makes of ``columns`` columns.
    """
    bits = _bits(fmt)
    _check_packed(packed, fmt, columns)
    if not _served(packed):
        return reference.unpack(packed, fmt, columns)
    result: torch.Tensor = _unpack(packed, bits, columns)
    return result


def row_bytes(fmt: str, columns: int) -> int:
    """Return the bytes of one packed row."""
    result: int = _core.bitpack_row_bytes(_bits(fmt), columns)
    return result


def dequantize(
    packed: torch.Tensor, scales: torch.Tensor, fmt: str, columns: int, *, group: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:  # fmt: skip
    """Unpack a matrix and multiply its scales in: ``scale * q`` as [O, columns] in fp32 or bf16.

    Args:
        packed: uint8 [O, row bytes], from ``pack``.
        scales: fp32 [O, G].
        fmt: the format of ``packed``.
        columns: I, of the matrix that was packed.
        group: columns per scale; None: one scale per row.
        dtype: of the result, fp32 or bf16.

    Raises:
        InputError: shapes that do not fit.
    """
    bits, group = _bits(fmt), _group(group, columns)
    _check_packed(packed, fmt, columns)
    _check_scales(scales, packed.shape[0], columns, group)
    if not native("bitpack", scales) or scales.dtype != torch.float32 or dtype not in DTYPE_CODE:
        return reference.dequantize(packed, scales, fmt, columns, group, dtype)
    result: torch.Tensor = _dequantize(packed, scales, bits, columns, group, DTYPE_CODE[dtype])
    return result


def fake_quantize(w_OI: torch.Tensor, scales: torch.Tensor, fmt: str, *, group: int | None = None) -> torch.Tensor:
    """Round a weight to what it is after quantization: ``scale * clamp(round(w / scale))``.

    The gradient is that of the identity (straight through); ``scales`` gets none. Codes are clamped to the symmetric
    range, -31..31 for int6. A scale of 0 gives 0.

    Args:
        w_OI: fp32 or bf16 [O, I].
        scales: fp32 [O, G].
        fmt: "int2" .. "int8" or "ternary".
        group: columns per scale; None: one scale per row.

    Returns:
        [O, I] in the dtype of ``w_OI``.

    Raises:
        InputError: shapes or dtypes that do not fit.
    """
    check_float("bitpack", "w", w_OI)
    if w_OI.ndim != 2 or not w_OI.shape[1]:
        raise InputError(f"bitpack: w has shape {tuple(w_OI.shape)}; expected [O, I]")
    bits, group = _bits(fmt), _group(group, w_OI.shape[1])
    _check_scales(scales, w_OI.shape[0], w_OI.shape[1], group)
    if not native("bitpack", w_OI):
        return reference.fake_quantize(w_OI, scales, fmt, group)
    result: torch.Tensor = _fake_quantize(w_OI, scales, bits, group)
    return result


def packed_linear(
    x: torch.Tensor, packed: torch.Tensor, scales: torch.Tensor, fmt: str, *, group: int | None = None
) -> torch.Tensor:
    """Multiply by a packed matrix, ``x w^T``, without unpacking it first; for one or a few rows of ``x``.

    Summed in fp32; there is no gradient.

    Args:
        x: fp32 or bf16 [..., I].
        packed: uint8 [O, row bytes], from ``pack``.
        scales: fp32 [O, G].
        fmt: the format of ``packed``.
        group: columns per scale; None: one scale per row.

    Returns:
        [..., O] in the dtype of x.

    Raises:
        InputError: shapes or dtypes that do not fit.
    """
    check_float("bitpack", "x", x)
    bits, columns = _bits(fmt), x.shape[-1] if x.ndim else 0
    group = _group(group, columns)
    _check_packed(packed, fmt, columns)
    _check_scales(scales, packed.shape[0], columns, group)
    if not native("bitpack", x):
        return reference.product(x, packed, scales, fmt, group)
    result: torch.Tensor = _product(x, packed, scales, bits, group)
    return result


# What codes are packed in for products: one row by 512 x 256 int7 takes 5 times as long as int6 and 3 times as long as
# int8, ternary 4 times as long as int2 (a thread of a Xeon with AMX).
FAST_BITS = (2, 3, 4, 5, 6, 8)
FEW_ROWS = 8  # up to here a packed product is faster than one of a matrix that is dequantized for it


@dataclass(frozen=True)
class PackedWeight:
    """A weight of one matrix, kept in a few bits per value; ``ops.linear`` takes it in place of a tensor.

    The matrix is ``scale * q * column + left right``, the last two being optional.

    Attributes:
        packed: uint8 [O, row bytes], from ``pack``.
        scales: fp32 [O, G].
        fmt: the format of ``packed``.
        columns: I.
        column_I: fp32 factors on the columns, or None.
        low_rank: fp32 factors [O, R] and [R, I] of a matrix that is added, or None.
    """

    packed: torch.Tensor
    scales: torch.Tensor
    fmt: str
    columns: int
    column_I: torch.Tensor | None = None
    low_rank: tuple[torch.Tensor, torch.Tensor] | None = None

    @classmethod
    def from_codes(
        cls, q_OI: torch.Tensor, scales: torch.Tensor, column_I: torch.Tensor | None = None,
        low_rank: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> PackedWeight:  # fmt: skip
        """Pack integer codes [O, I] into the narrowest of the formats int2 to int6 and int8 that holds them.

        Raises:
            InputError: a code beyond int8, or scales that do not fit.
        """
        low, high = int(q_OI.min()), int(q_OI.max())
        wide = max(max(0, n).bit_length() + 1 for n in (-1 - low, high))
        if wide > FAST_BITS[-1]:
            raise InputError(f"bitpack: codes reach from {low} to {high}; int8 holds -128 to 127")
        fmt = f"int{next(bits for bits in FAST_BITS if wide <= bits)}"
        _check_scales(scales, q_OI.shape[0], q_OI.shape[1], q_OI.shape[1] // max(1, scales.shape[-1]))
        return cls(pack(q_OI.to(torch.int8), fmt), scales.float(), fmt, q_OI.shape[1], column_I, low_rank)

    @property
    def group(self) -> int:
        """Columns per scale."""
        return self.columns // self.scales.shape[1]

    def product(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x w^T``, [..., O] in the dtype of ``x``; there is no gradient.

        Raises:
            InputError: ``x`` has another width than the matrix.
        """
        if x.shape[-1] != self.columns:
            raise InputError(f"linear: x has shape {tuple(x.shape)}; expected [..., {self.columns}]")
        scaled = x if self.column_I is None else x * self.column_I.to(x.dtype)
        if x.numel() > FEW_ROWS * self.columns or not native("bitpack", x):
            y = products.linear(scaled, dequantize(self.packed, self.scales, self.fmt, self.columns, group=self.group))
        else:
            y = _product(scaled, self.packed, self.scales, FORMATS[self.fmt], self.group)
        if self.low_rank is None:
            return y
        left_OR, right_RI = self.low_rank
        return y + products.linear(products.linear(x, right_RI), left_OR)


def _served(integers: torch.Tensor) -> bool:
    return native("bitpack", integers.new_empty(0, dtype=torch.float32))


def _bits(fmt: str) -> int:
    if fmt not in FORMATS:
        raise InputError(f"bitpack: format {fmt!r}; expected one of {', '.join(FORMATS)}")
    return FORMATS[fmt]


def _group(group: int | None, columns: int) -> int:
    if group is not None and group < 1:
        raise InputError(f"bitpack: group = {group}; expected 1 or more columns to a scale, or None for one per row")
    return max(columns, 1) if group is None else group


def _check_packed(packed: torch.Tensor, fmt: str, columns: int) -> None:
    if columns < 1:
        raise InputError(f"bitpack: {columns} columns; expected 1 or more")
    expected = row_bytes(fmt, columns)
    if packed.dtype != torch.uint8 or packed.ndim != 2 or packed.shape[1] != expected:
        raise InputError(
            f"bitpack: packed is {packed.dtype} {tuple(packed.shape)}; {columns} columns of {fmt} take uint8 "
            f"[O, {expected}], as pack() makes them"
        )


def _check_scales(scales: torch.Tensor, rows: int, columns: int, group: int) -> None:
    if scales.dtype not in (torch.float32, torch.float64):
        raise InputError(f"bitpack: scales are {scales.dtype}; expected fp32, as scales.float() gives")
    check_shape("bitpack", "scales", scales, (rows, -(-columns // group)))


def _pack_native(q: torch.Tensor, bits: int) -> torch.Tensor:
    q, packed = q.contiguous(), _pack_fake(q, bits)
    rows, columns = q.shape
    kernels.bitpack_pack(q, q=address(q), bits=bits, rows=rows, columns=columns, data=address(packed))
    return packed


def _pack_fake(q: torch.Tensor, bits: int) -> torch.Tensor:
    return q.new_empty(q.shape[0], _core.bitpack_row_bytes(bits, int(q.shape[1])), dtype=torch.uint8)


def _bytes(packed: torch.Tensor) -> torch.Tensor:
    """``packed`` as the kernels read it: contiguous, at a multiple of 8."""
    packed = packed.contiguous()
    return packed.clone() if packed.data_ptr() % 8 else packed


def _matrix(packed: torch.Tensor, scales: torch.Tensor, bits: int, columns: int, group: int) -> kernels.PackedMatrix:
    return kernels.packed_matrix(
        data=address(packed), scales=address(scales), bits=bits, rows=packed.shape[0], columns=columns, group=group
    )


def _unpack_native(packed: torch.Tensor, bits: int, columns: int) -> torch.Tensor:
    packed = _bytes(packed)
    q = packed.new_empty(packed.shape[0], columns, dtype=torch.int8)
    matrix = kernels.packed_matrix(
        data=address(packed), scales=NULL, bits=bits, rows=packed.shape[0], columns=columns, group=columns
    )
    kernels.bitpack_unpack(packed, matrix, q=address(q))
    return q


def _dequantize_native(
    packed: torch.Tensor, scales: torch.Tensor, bits: int, columns: int, group: int, dtype: int
) -> torch.Tensor:
    packed, scales = _bytes(packed), scales.contiguous()
    w = _dequantize_fake(packed, scales, bits, columns, group, dtype)
    kernels.bitpack_dequantize(packed, _matrix(packed, scales, bits, columns, group), dtype=dtype, w=address(w))
    return w


def _dequantize_fake(
    packed: torch.Tensor, scales: torch.Tensor, bits: int, columns: int, group: int, dtype: int
) -> torch.Tensor:
    kind = torch.float32 if dtype == DTYPE_CODE[torch.float32] else torch.bfloat16
    return scales.new_empty(packed.shape[0], columns, dtype=kind)


def _fake_quantize_native(w: torch.Tensor, scales: torch.Tensor, bits: int, group: int) -> torch.Tensor:
    w, scales = w.contiguous(), scales.float().contiguous()
    y = torch.empty_like(w)
    rows, columns = w.shape
    kernels.bitpack_fake_quantize(
        w, dtype=DTYPE_CODE[w.dtype], w=address(w), scales=address(scales), y=address(y), bits=bits, rows=rows,
        columns=columns, group=group,
    )  # fmt: skip
    return y


def _product_cpu(x: torch.Tensor, packed: torch.Tensor, scales: torch.Tensor, bits: int, group: int) -> torch.Tensor:
    x, packed, scales = x.contiguous(), packed.contiguous(), scales.float().contiguous()
    columns, rows = x.shape[-1], packed.shape[0]
    batch = x.numel() // columns
    y = x.new_empty(*x.shape[:-1], rows, dtype=torch.float32)
    prepared = x.new_empty(_core.bitpack_workspace(batch, columns), dtype=torch.uint8)
    kernels.bitpack_product(
        x, _matrix(packed, scales, bits, columns, group), dtype=DTYPE_CODE[x.dtype], x=address(x), y=address(y),
        batch=batch, prepared=address(prepared),
    )  # fmt: skip
    return y.to(x.dtype)


def _product_device(x: torch.Tensor, packed: torch.Tensor, scales: torch.Tensor, bits: int, group: int) -> torch.Tensor:
    x, packed, scales = x.contiguous(), _bytes(packed), scales.float().contiguous()
    columns = x.shape[-1]
    y = _product_fake(x, packed, scales, bits, group)
    kernels.bitpack_product_device(
        x, _matrix(packed, scales, bits, columns, group), dtype=DTYPE_CODE[x.dtype], x=address(x), y=address(y),
        batch=x.numel() // columns,
    )  # fmt: skip
    return y


def _product_fake(x: torch.Tensor, packed: torch.Tensor, scales: torch.Tensor, bits: int, group: int) -> torch.Tensor:
    return x.new_empty(*x.shape[:-1], packed.shape[0])


_pack = define_op("bitpack", "pack(Tensor q, int bits) -> Tensor", _pack_native, _pack_fake, device=_pack_native)
_unpack = define_op(
    "bitpack", "unpack(Tensor packed, int bits, int columns) -> Tensor", _unpack_native,
    lambda packed, bits, columns: packed.new_empty(packed.shape[0], columns, dtype=torch.int8), device=_unpack_native,
)  # fmt: skip
_dequantize = define_op(
    "bitpack", "dequantize(Tensor packed, Tensor scales, int bits, int columns, int group, int dtype) -> Tensor",
    _dequantize_native, _dequantize_fake, device=_dequantize_native,
)  # fmt: skip
_fake_quantize = define_op(
    "bitpack", "fake_quantize(Tensor w, Tensor scales, int bits, int group) -> Tensor", _fake_quantize_native,
    lambda w, scales, bits, group: w.new_empty(w.shape), device=_fake_quantize_native,
)  # fmt: skip
_product = define_op(
    "bitpack", "packed_linear(Tensor x, Tensor packed, Tensor scales, int bits, int group) -> Tensor", _product_cpu,
    _product_fake, device=_product_device,
)  # fmt: skip


def _straight_through(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
    return dy, None, None, None


register_backward(_fake_quantize, lambda ctx, inputs, output: None, _straight_through)
