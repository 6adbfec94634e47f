"""Linear layers that read one input."""

from __future__ import annotations

import torch

from golfcore.ops.reference import widen


def linear(x: torch.Tensor, *weights_OI: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return ``x W^T`` for each W, cast to the dtype of x; see ``golfcore.ops.linear``."""
    return tuple((widen(x) @ widen(w_OI.to(x.dtype)).t()).to(x.dtype) for w_OI in weights_OI)
