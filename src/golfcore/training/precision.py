"""Choose the dtype of the activations."""

from __future__ import annotations

import torch

from golfcore.ops import products


def choose_precision(wish: str, device: torch.device) -> tuple[torch.dtype, str]:
    """Return the dtype of the activations, and why it was chosen.

    Args:
        wish: ``bf16``, ``fp32``, or ``auto`` for bf16 on a GPU and the dtype that multiplies faster on a processor.
        device: the device of the model.
    """
    if wish != "auto":
        return (torch.bfloat16 if wish == "bf16" else torch.float32), "as the recipe says"
    if device.type == "cuda":
        return torch.bfloat16, "bf16 tensor cores"
    return products.fast_dtype(), f"products: {products.speeds()}"
