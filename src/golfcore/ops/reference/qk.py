"""RMSNorm, rotary positions and gain of queries and keys."""

from __future__ import annotations

import torch

from golfcore.ops.reference import widen


def qk(
    q_BTNH: torch.Tensor,
    k_BTKH: torch.Tensor,
    cos_TR: torch.Tensor,
    sin_TR: torch.Tensor,
    gain_N: torch.Tensor | None = None,
    positions_BT: torch.Tensor | None = None,
    eps: float = 1e-6,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return both normed by head and rotated in their first ``2 R`` dimensions; queries times their head's gain."""
    length = q_BTNH.shape[1]
    cos, sin = (table[:length] if positions_BT is None else table[positions_BT.long()] for table in (cos_TR, sin_TR))
    q = _rotate(_norm(q_BTNH, eps), cos[..., None, :], sin[..., None, :])
    k = _rotate(_norm(k_BTKH, eps), cos[..., None, :], sin[..., None, :])
    if gain_N is not None:
        q = q * gain_N[:, None]
    return q.to(q_BTNH.dtype), k.to(k_BTKH.dtype)


def _norm(x: torch.Tensor, eps: float) -> torch.Tensor:
    wide = widen(x)
    return wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    half = cos.shape[-1]
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat((first * cos + second * sin, second * cos - first * sin, rest), dim=-1)
