"""Residual mix and RMSNorm."""

from __future__ import annotations

import torch

from golfcore.ops.reference import widen


def mix_norm(
    x: torch.Tensor,
    branch: torch.Tensor | None = None,
    skip: torch.Tensor | None = None,
    *,
    stream_gain: torch.Tensor | None = None,
    branch_gain: torch.Tensor | None = None,
    skip_gain: torch.Tensor | None = None,
    scale: float = 1.0,
    eps: float = 1e-6,
    dtype: torch.dtype | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mixed stream in the dtype of ``x``, and its norm in ``dtype``."""
    mix = widen(x)
    if branch is not None:
        mix = mix + (widen(branch) if branch_gain is None else branch_gain * branch)
    if stream_gain is not None:
        mix = stream_gain * mix
    if skip is not None and skip_gain is not None:
        mix = mix + skip_gain * skip
    stream = mix.to(x.dtype)
    wide = widen(stream)
    normalized = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps) * scale
    return stream, normalized.to(dtype or x.dtype)


def residual(x: torch.Tensor, branch: torch.Tensor, branch_gain: torch.Tensor) -> torch.Tensor:
    """Return ``x + branch_gain * branch`` in the dtype of ``x``."""
    return (widen(x) + branch_gain * widen(branch)).to(x.dtype)
