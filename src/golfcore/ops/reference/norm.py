"""Residual mix and RMSNorm."""

from __future__ import annotations

import torch

from golfcore.ops.reference import widen


def rms_norm(
    x: torch.Tensor,
    y: torch.Tensor | None = None,
    x0: torch.Tensor | None = None,
    *,
    a: torch.Tensor | None = None,
    s: torch.Tensor | None = None,
    b: torch.Tensor | None = None,
    c: float = 1.0,
    eps: float = 1e-6,
    dtype: torch.dtype | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """``r = a (x + s y) + b x0`` in the dtype of ``x``, and ``h = c r / rms(r)`` in ``dtype``."""
    mix = widen(x)
    if y is not None:
        mix = mix + (widen(y) if s is None else s * y)
    if a is not None:
        mix = a * mix
    if x0 is not None and b is not None:
        mix = mix + b * x0
    r = mix.to(x.dtype)
    wide = widen(r)
    h = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps) * c
    return r, h.to(dtype or x.dtype)


def residual(x: torch.Tensor, y: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
    """``x + s y`` in the dtype of ``x``."""
    return (widen(x) + s * widen(y)).to(x.dtype)
