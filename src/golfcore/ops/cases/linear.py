"""Rows for linear layers that read one input."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from golfcore.ops import products
from golfcore.ops.cases.base import Case, Tensors, normal
from golfcore.ops.linear import linear
from golfcore.ops.reference.linear import linear as reference


def _plain(x: torch.Tensor, *weights: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """A product and a cast for each layer, their gradients added up by autograd."""
    return tuple(products.linear(x, w) for w in weights)


def _with(function: Any, count: int) -> Any:
    """``function`` with its weights by name, as a case passes them."""
    return lambda x, **weights: function(x, *(weights[f"w{i}"] for i in range(count)))


def _build(
    dtype: torch.dtype, generator: torch.Generator, *, shape: tuple[int, ...], widths: tuple[int, ...],
    strided: bool = False, cast: bool = False,
) -> Tensors:  # fmt: skip
    d_in = shape[-1]
    x = normal(*shape[:-1], 2 * d_in if strided else d_in, generator=generator, dtype=dtype)[..., :d_in]
    kept = dtype if cast else torch.float32
    return {"x": x} | {
        f"w{i}": (normal(width, d_in, generator=generator) / d_in**0.5).to(kept) for i, width in enumerate(widths)
    }


def _case(name: str, shape: tuple[int, ...], widths: tuple[int, ...], *, bench: bool = False, **more: Any) -> Case:
    tokens, count = shape[0] if len(shape) == 2 else shape[0] * shape[1], len(widths)
    return Case(
        op="linear", name=name, build=partial(_build, shape=shape, widths=widths, **more), call=_with(linear, count),
        reference=_with(reference, count), plain=_with(_plain, count),
        grads=("x", *(f"w{i}" for i in range(count))), torch_products=True, gradcheck=name.endswith("-tiny"),
        bench=bench, shape=f"{tokens}x{shape[-1]} -> {'+'.join(map(str, widths))}",
        flops=6.0 * tokens * shape[-1] * sum(widths),
    )  # fmt: skip


CASES = (
    _case("one-tiny", (3, 4), (2,)),
    _case("three-tiny", (2, 3, 4), (3, 1, 2)),
    _case("empty", (0, 16), (8, 4)),
    _case("one-token", (1, 33), (17,)),
    _case("ragged", (3, 45, 72), (40, 24, 24)),
    _case("wide", (65, 24), (96,)),
    _case("narrow-weights", (31, 40), (24, 8), cast=True),
    _case("strided", (6, 7, 20), (12, 5), strided=True),
    _case("qkv-pocket", (32, 256, 256), (256, 128, 128), bench=True),
)
