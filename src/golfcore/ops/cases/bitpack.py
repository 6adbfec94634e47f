"""Rows for packed weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from golfcore.ops import bitpack, products
from golfcore.ops.cases.base import Case, Tensors, normal
from golfcore.ops.reference import bitpack as reference


def _product(x: torch.Tensor, w: torch.Tensor, packed: torch.Tensor, scales: torch.Tensor, fmt: str, group: int) -> Any:
    return bitpack.packed_linear(x, packed, scales, fmt, group=group)


def _product_reference(
    x: torch.Tensor, w: torch.Tensor, packed: torch.Tensor, scales: torch.Tensor, fmt: str, group: int
) -> torch.Tensor:
    return reference.product(x, packed, scales, fmt, group)


def _product_plain(
    x: torch.Tensor, w: torch.Tensor, packed: torch.Tensor, scales: torch.Tensor, fmt: str, group: int
) -> torch.Tensor:
    """Weights that were dequantized to the input's dtype beforehand, and torch's product."""
    return products.linear(x, w)


def _dequantize(packed: torch.Tensor, q: torch.Tensor, scales: torch.Tensor, fmt: str, group: int, dtype: Any) -> Any:
    return bitpack.dequantize(packed, scales, fmt, q.shape[1], group=group, dtype=dtype)


def _dequantize_reference(
    packed: torch.Tensor, q: torch.Tensor, scales: torch.Tensor, fmt: str, group: int, dtype: torch.dtype
) -> torch.Tensor:
    kept = scales.dtype if scales.dtype == torch.float64 else dtype
    return reference.dequantize(packed, scales, fmt, q.shape[1], group, kept)


def _dequantize_plain(
    packed: torch.Tensor, q: torch.Tensor, scales: torch.Tensor, fmt: str, group: int, dtype: torch.dtype
) -> torch.Tensor:
    return (q * reference.expand(scales, q.shape[1], group)).to(dtype)


def _fake(w: torch.Tensor, scales: torch.Tensor, fmt: str, group: int) -> torch.Tensor:
    return bitpack.fake_quantize(w, scales, fmt, group=group)


def _codes(fmt: str, rows: int, columns: int, generator: torch.Generator) -> torch.Tensor:
    bits = reference.FORMATS[fmt]
    low, high = (-1, 1) if bits == 0 else (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    return torch.randint(low, high + 1, (rows, columns), generator=generator).to(torch.int8)


def _build(
    dtype: torch.dtype, generator: torch.Generator, *, kind: str, fmt: str, shape: tuple[int, int],
    group: int | None = None, batch: tuple[int, ...] = (),
) -> Tensors:  # fmt: skip
    rows, columns = shape
    group = columns if group is None else group
    q = _codes(fmt, rows, columns, generator)
    scales = torch.rand(rows, -(-columns // group), generator=generator) + 0.1
    if kind == "fake":
        w = normal(rows, columns, generator=generator, dtype=dtype) * 3
        return {"w": w, "scales": scales, "fmt": fmt, "group": group}
    built: Tensors = {"packed": bitpack.pack(q, fmt), "q": q, "scales": scales, "fmt": fmt, "group": group}
    if kind == "dequantize":
        return {**built, "dtype": dtype}
    del built["q"]
    w = (q * reference.expand(scales, columns, group)).to(dtype)
    return {"x": normal(*batch, columns, generator=generator, dtype=dtype), "w": w, **built}


FUNCTIONS: dict[str, tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]] = {
    "product": (_product, _product_reference, _product_plain),
    "dequantize": (_dequantize, _dequantize_reference, _dequantize_plain),
    "fake": (_fake, reference.fake_quantize, reference.fake_quantize),
}


def _touched(arguments: Tensors) -> float:
    tensors = [arguments[name] for name in ("x", "packed", "scales") if name in arguments]
    if "w" in arguments and "x" not in arguments:
        tensors += [arguments["w"]] * 2
    return float(sum(t.numel() * t.element_size() for t in tensors))


def _case(kind: str, name: str, fmt: str, shape: tuple[int, int], *, bench: bool = False, **more: Any) -> Case:
    call, exact, plain = FUNCTIONS[kind]
    return Case(
        op="bitpack", name=f"{kind}-{name}", build=partial(_build, kind=kind, fmt=fmt, shape=shape, **more),
        call=call, reference=exact, plain=plain, grads=("w",) if kind == "fake" else (), touched=_touched,
        bench=bench, shape=f"{shape[0]}x{shape[1]} {fmt}" if bench else "",
    )  # fmt: skip


CASES = (
    *(_case("product", fmt, fmt, (9, 333), batch=(2,)) for fmt in reference.FORMATS),
    *(_case("product", f"{fmt}-groups", fmt, (5, 704), group=128, batch=(1,)) for fmt in reference.FORMATS),
    _case("product", "vector", "int6", (7, 64)),
    _case("product", "one", "int4", (1, 1)),
    _case("product", "empty", "int6", (4, 64), batch=(0,)),
    _case("product", "no-rows", "int6", (0, 64), batch=(3,)),
    _case("product", "odd-groups", "int6", (3, 200), group=33, batch=(3, 3)),
    *(_case("dequantize", fmt, fmt, (6, 130), group=50) for fmt in reference.FORMATS),
    *(_case("dequantize", f"{fmt}-whole", fmt, (3, 160), group=32) for fmt in reference.FORMATS),
    *(_case("fake", fmt, fmt, (6, 130), group=50) for fmt in reference.FORMATS),
    _case("fake", "whole", "int6", (3, 160), group=32),
    _case("product", "matvec", "int6", (4096, 4096), bench=True),
    _case("product", "batch4", "int6", (4096, 4096), bench=True, batch=(4,)),
    _case("product", "matvec-ternary", "ternary", (4096, 4096), bench=True),
    _case("fake", "matvec", "int6", (4096, 4096), bench=True),
)
