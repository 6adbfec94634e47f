"""Squared activations."""

from __future__ import annotations

import torch

from golfcore.ops.reference import widen


def leaky2(u: torch.Tensor, slope: float) -> torch.Tensor:
    """Return ``phi(u)**2`` with ``phi(u) = u`` above zero and ``slope * u`` below; ``u`` has any shape."""
    wide = widen(u)
    # Not leaky_relu: with slope 0 it turns -inf into NaN.
    phi = torch.relu(wide) if slope == 0 else torch.where(wide > 0, wide, slope * wide)
    return phi.square().to(u.dtype)
