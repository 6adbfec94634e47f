"""Weights in a few bits: the codes' layout and arithmetic, value by value."""

from __future__ import annotations

import torch

from golfcore.ops.reference import widen

FORMATS = {"ternary": 0, **{f"int{bits}": bits for bits in range(2, 9)}}  # format -> bits, as csrc/bitpack/bitpack.h


def pack(q_OI: torch.Tensor, fmt: str) -> torch.Tensor:
    """Pack int8 codes into bytes [O, row bytes]; the layout is written down in csrc/bitpack/bitpack.h."""
    bits = FORMATS[fmt]
    block = 80 if bits == 0 else 64
    rows, columns = q_OI.shape
    blocks = -(-columns // block)
    u = torch.zeros(rows, blocks * block, dtype=torch.int64, device=q_OI.device)
    u[:, :columns] = q_OI.long() + (1 if bits == 0 else 1 << (bits - 1))
    u = u.view(rows, blocks, block)
    if bits == 0:
        digits = [u[..., 16 * s : 16 * s + 16] * 3 ** (4 - s) for s in range(5)]
        number = torch.stack(digits).sum(0)
        return ((256 * number + 242) // 243).to(torch.uint8).flatten(1)
    planes, shift = [], 0
    for width in (8,) if bits == 8 else [w for w in (4, 2, 1) if bits & w]:
        part = ((u >> shift) & ((1 << width) - 1)).view(rows, blocks, 8 // width, 8 * width)
        planes.append(torch.stack([part[:, :, s] << (width * s) for s in range(8 // width)]).sum(0))
        shift += width
    return torch.cat(planes, -1).to(torch.uint8).flatten(1)


def unpack(packed: torch.Tensor, fmt: str, columns: int) -> torch.Tensor:
    """Unpack the int8 codes [O, columns] of ``pack``."""
    bits = FORMATS[fmt]
    rows = packed.shape[0]
    width = 16 if bits == 0 else 8 * bits
    bytes_ = packed.view(rows, packed.shape[1] // width, width).long()
    if bits == 0:
        number = bytes_ * 243 // 256
        u = torch.cat([number // 3 ** (4 - s) % 3 for s in range(5)], -1)
        return (u - 1).to(torch.int8).flatten(1)[:, :columns]
    u, shift, at = torch.zeros(rows, bytes_.shape[1], 64, dtype=torch.int64, device=packed.device), 0, 0
    for width in (8,) if bits == 8 else [w for w in (4, 2, 1) if bits & w]:
        part = bytes_[..., at : at + 8 * width]
        copies = torch.cat([(part >> (width * s)) & ((1 << width) - 1) for s in range(8 // width)], -1)
        u, shift, at = u | copies << shift, shift + width, at + 8 * width
    return (u - (1 << (bits - 1))).to(torch.int8).flatten(1)[:, :columns]


def expand(scales_OG: torch.Tensor, columns: int, group: int) -> torch.Tensor:
    """Return one scale for each column [O, columns]."""
    return scales_OG.repeat_interleave(group, 1)[:, :columns]


def dequantize(
    packed: torch.Tensor, scales_OG: torch.Tensor, fmt: str, columns: int, group: int, dtype: torch.dtype
) -> torch.Tensor:
    """Return ``scale q`` [O, columns]."""
    scales_OI = expand(scales_OG, columns, group)
    return (unpack(packed, fmt, columns).to(scales_OI.dtype) * scales_OI).to(dtype)


def fake_quantize(w: torch.Tensor, scales: torch.Tensor, fmt: str, group: int) -> torch.Tensor:
    """Return ``scale clamp(round(w / scale))`` with the gradient of the identity."""
    bits = FORMATS[fmt]
    largest = 1 if bits == 0 else (1 << (bits - 1)) - 1
    wide = widen(w)
    scales_OI = expand(scales, w.shape[1], group).to(wide.dtype)
    codes = torch.round(wide / torch.where(scales_OI == 0, 1.0, scales_OI)).clamp(-largest, largest)
    rounded = (codes * scales_OI).to(w.dtype)
    return rounded.detach() + (w - w.detach())


def product(x: torch.Tensor, packed: torch.Tensor, scales_OG: torch.Tensor, fmt: str, group: int) -> torch.Tensor:
    """Return ``x w^T`` with the dequantized w."""
    wide = widen(x)
    w_OI = dequantize(packed, scales_OG.to(wide.dtype), fmt, x.shape[-1], group, wide.dtype)
    return (wide @ w_OI.t()).to(x.dtype)
