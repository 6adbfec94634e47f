"""Rows for the squared activations."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F

from golfcore.ops.activation import leaky2
from golfcore.ops.cases.base import Case, Tensors, normal
from golfcore.ops.reference.activation import leaky2 as reference


def plain(u: torch.Tensor, slope: float) -> torch.Tensor:
    """Compute it by the usual two operations."""
    return (F.relu(u) if slope == 0 else F.leaky_relu(u, slope)).square()


def _build(dtype: torch.dtype, generator: torch.Generator, *, shape: tuple[int, ...], slope: float) -> Tensors:
    return {"u": normal(*shape, generator=generator, dtype=dtype), "slope": slope}


def _strided(dtype: torch.dtype, generator: torch.Generator, *, slope: float) -> Tensors:
    return {"u": normal(9, 40, generator=generator, dtype=dtype).t()[::2], "slope": slope}


def _touched(arguments: Tensors) -> float:
    u: torch.Tensor = arguments["u"]
    return 5.0 * u.numel() * u.element_size()  # forward: u, y; backward: u, dy, du


def _case(name: str, build: Callable[..., Tensors], *, bench: bool = False, shape: str = "") -> Case:
    return Case(
        op="activation", name=name, build=build, call=leaky2, reference=reference, plain=plain, grads=("u",),
        gradcheck=name.endswith("-tiny"), bench=bench, shape=shape, touched=_touched,
    )  # fmt: skip


CASES = tuple(
    _case(f"{kind}-{name}", build)
    for kind, slope in (("relu2", 0.0), ("leaky2", 0.5))
    for name, build in (
        ("tiny", partial(_build, shape=(3, 5), slope=slope)),
        ("empty", partial(_build, shape=(0, 64), slope=slope)),
        ("one", partial(_build, shape=(1,), slope=slope)),
        ("ragged", partial(_build, shape=(257, 333), slope=slope)),
        ("strided", partial(_strided, slope=slope)),
    )
) + tuple(
    _case(name, partial(_build, shape=(8192, width), slope=slope), bench=True, shape=f"8192x{width}")
    for name, width, slope in (("relu2-pocket", 768, 0.0), ("leaky2-pocket", 1024, 0.5))
)
