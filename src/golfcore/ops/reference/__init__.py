"""The operations in obvious torch: fp32 arithmetic (fp64 where the input is), any device, gradients by autograd.

They are what the kernels are judged by, and what serves where no kernel does.
"""

from __future__ import annotations

import torch


def widen(x: torch.Tensor) -> torch.Tensor:
    """Return ``x`` in the arithmetic of the references: fp64 stays, everything narrower becomes fp32."""
    return x if x.dtype == torch.float64 else x.float()
