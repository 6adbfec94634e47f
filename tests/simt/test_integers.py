"""Kernels for GPUs whose results are integers, which the table of cases does not compare, against the reference."""

from __future__ import annotations

import pytest
import torch

from golfcore.ops import bitpack, check
from golfcore.ops.reference import bitpack as reference


@pytest.mark.parametrize("columns", [1, 77, 80, 208])
@pytest.mark.parametrize("fmt", reference.FORMATS)
def test_codes_are_packed_and_unpacked_bit_by_bit(fmt: str, columns: int) -> None:
    bits = reference.FORMATS[fmt]
    low, high = (-1, 1) if bits == 0 else (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    generator = torch.Generator().manual_seed(columns)
    q = torch.randint(low, high + 1, (3, columns), generator=generator).to(torch.int8)
    expected = reference.pack(q, fmt)
    with check.on_simt(seed=1):
        packed = bitpack.pack(q, fmt)
        codes = bitpack.unpack(packed, fmt, columns)
        # Bytes at an odd address are copied to where the kernel can read them.
        shifted = bitpack.unpack(
            torch.cat((packed.new_zeros(1), packed.flatten()))[1:].view(packed.shape), fmt, columns
        )
    assert torch.equal(packed, expected)
    assert torch.equal(codes, q)
    assert torch.equal(shifted, q)
