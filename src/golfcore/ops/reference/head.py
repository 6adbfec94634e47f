"""Linear layer, soft-cap and cross-entropy."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from golfcore.ops.reference import widen


def linear_cross_entropy(
    x: torch.Tensor, w: torch.Tensor, targets: torch.Tensor, softcap: float = 0.0, reduction: str = "mean"
) -> torch.Tensor:
    """Return ``-log softmax(softcap(x w^T))[targets]``; x [..., D], w [V, D], targets [...]."""
    logits = widen(x) @ widen(w).to(widen(x).dtype).t()
    if softcap > 0:
        logits = softcap * torch.tanh(logits / softcap)
    losses = F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="none")
    return losses.mean() if reduction == "mean" else losses.view(targets.shape)
