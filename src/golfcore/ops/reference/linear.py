"""Linear layers that read one input."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def linear(x: torch.Tensor, *weights_OI: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """``x W^T`` for each W, cast to the dtype of x; see ``golfcore.ops.linear``."""
    return tuple(F.linear(x, w_OI.to(x.dtype)) for w_OI in weights_OI)
