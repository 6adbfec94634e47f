"""Packed weights: every code of every format, exact layouts and products, bad input."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from golfcore import _core
from golfcore.errors import InputError
from golfcore.ops import dequantize, fake_quantize, pack, packed_linear, row_bytes, unpack, using
from golfcore.ops.reference.bitpack import FORMATS
from golfcore.ops.registry import ISAS


@pytest.fixture
def isa() -> Iterator[Any]:
    yield _core.set_isa
    _core.set_isa(ISAS[-1])


def codes(fmt: str, rows: int, columns: int) -> torch.Tensor:
    bits = FORMATS[fmt]
    low, high = (-1, 1) if bits == 0 else (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    return torch.randint(low, high + 1, (rows, columns), generator=torch.Generator().manual_seed(1)).to(torch.int8)


@pytest.mark.parametrize("level", ISAS)
@pytest.mark.parametrize("fmt", FORMATS)
def test_bytes_are_those_of_the_layout(fmt: str, level: str, isa: Any) -> None:
    isa(level)
    for columns in (1, 63, 64, 65, 80, 81, 320, 1000):
        q = codes(fmt, 5, columns)
        packed = pack(q, fmt)
        assert packed.shape == (5, row_bytes(fmt, columns))
        assert torch.equal(unpack(packed, fmt, columns), q)
        with using("reference"):
            assert torch.equal(pack(q, fmt), packed)
            assert torch.equal(unpack(packed, fmt, columns), q)


def test_sizes() -> None:
    assert [row_bytes(f"int{bits}", 4096) for bits in range(2, 9)] == [512 * bits for bits in range(2, 9)]
    assert row_bytes("ternary", 4000) == 800  # 1.6 bits


def test_every_ternary_byte() -> None:
    """All 243 groups of five."""
    n = torch.arange(243)
    digits = torch.stack([n // 3**s % 3 for s in range(5)], 1) - 1
    q = torch.zeros(243, 80, dtype=torch.int8)
    q[:, ::16] = digits.to(torch.int8)
    packed = pack(q, "ternary")
    assert torch.equal(unpack(packed, "ternary", 80), q)
    assert len(packed[:, 0].unique()) == 243


@pytest.mark.parametrize("level", ISAS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("fmt", FORMATS)
def test_products_of_small_integers_are_exact(fmt: str, dtype: torch.dtype, level: str, isa: Any) -> None:
    isa(level)
    q = codes(fmt, 7, 200)
    x = torch.randint(-2, 3, (6, 200)).to(dtype)
    scales = torch.full((7, 1), 0.5)
    y = packed_linear(x.float() if dtype == torch.float32 else x, pack(q, fmt), scales, fmt)
    assert torch.equal(y, ((x.double() @ q.double().t()) * 0.5).to(dtype))


def test_fp32_inputs_keep_their_24_bits() -> None:
    """The split into three bf16 numbers loses nothing."""
    x = torch.randn(64) * 10.0 ** torch.linspace(-20, 20, 64)
    q = torch.eye(64, dtype=torch.int8)
    assert torch.equal(packed_linear(x, pack(q, "int6"), torch.ones(64, 1), "int6"), x)


def test_nan_and_infinity_reach_the_output() -> None:
    x = torch.tensor([[float("nan"), 1.0], [float("inf"), 1.0]])
    q = torch.ones(1, 2, dtype=torch.int8)
    for fmt in ("int6", "int8", "ternary"):
        y = packed_linear(x, pack(q, fmt), torch.ones(1, 1), fmt)
        assert y[0].isnan().all() and not y[1].isfinite().any()


def test_straight_through() -> None:
    w = (torch.randn(4, 40) * 9).requires_grad_()
    scales = torch.tensor([[0.5], [0.0], [1.0], [2.0]])
    y = fake_quantize(w, scales, "int3")
    seed = torch.randn(4, 40)
    y.backward(seed)
    assert torch.equal(w.grad, seed)
    assert y[1].abs().max() == 0
    steps = y[2].detach()
    assert torch.equal(steps, w[2].detach().round().clamp(-3, 3))


def test_fake_quantized_weights_are_what_is_packed() -> None:
    w = torch.randn(6, 128)
    scales = w.abs().amax(1, keepdim=True) / 31
    q = torch.round(w / scales).to(torch.int8)
    assert torch.equal(fake_quantize(w, scales, "int6"), dequantize(pack(q, "int6"), scales, "int6", 128))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pack(torch.zeros(2, 3), "int6"), "q is torch.float32"),
        (lambda: pack(torch.full((1, 3), 32, dtype=torch.int8), "int6"), "from 32 to 32; int6 holds -32 to 31"),
        (lambda: pack(torch.full((1, 3), -2, dtype=torch.int8), "ternary"), "ternary holds -1 to 1"),
        (lambda: pack(torch.zeros(1, 3, dtype=torch.int8), "int9"), "format 'int9'; expected one of ternary, int2"),
        (lambda: unpack(torch.zeros(2, 47, dtype=torch.uint8), "int6", 64), r"expected|take uint8 \[O, 48\]"),
        (lambda: packed_linear(torch.zeros(65), PACKED, SCALES, "int6"), r"65 columns of int6 take uint8 \[O, 96\]"),
        (lambda: packed_linear(torch.zeros(64), PACKED, torch.ones(3, 1), "int6"), "scales has shape"),
        (lambda: packed_linear(torch.zeros(64), PACKED, SCALES.bfloat16(), "int6"), "scales are torch.bfloat16"),
        (lambda: packed_linear(torch.zeros(64), PACKED, SCALES, "int6", group=0), "group = 0"),
        (lambda: packed_linear(torch.zeros(64, dtype=torch.int8), PACKED, SCALES, "int6"), "x is torch.int8"),
        (lambda: fake_quantize(torch.zeros(3), SCALES, "int6"), "w has shape"),
    ],
)
def test_bad_input_names_the_tensor(call: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


PACKED, SCALES = torch.zeros(2, 48, dtype=torch.uint8), torch.ones(2, 1)
