"""Stand in for ``golfcore.ops.columns``: GPTQ's inner loop by rounding, in plain torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

LIMIT = 127


def quantize_columns(
    wanted_CO: Tensor, weight_CO: Tensor, feedback_CC: Tensor, step_O: Tensor, *, shrink_C: Tensor, limit: int,
    trellis: int, ranges: Sequence[int],
) -> Tensor:  # fmt: skip
    """Quantize a block of columns as ``golfcore.ops.columns.quantize_columns`` does without a trellis.

    ``weight_CO`` is overwritten with the errors.
    """
    symbols_CO = torch.empty(wanted_CO.shape, dtype=torch.int8)
    inverse_O = torch.where(step_O > 0, 1 / step_O, torch.zeros_like(step_O))
    for j, weight_O in enumerate(weight_CO):
        wanted_O = (wanted_CO[j] + feedback_CC[:j, j] @ weight_CO[:j]) * inverse_O * shrink_C[j]
        symbols_CO[j] = wanted_O.round().clamp(-limit, limit).to(torch.int8)
        weight_O -= symbols_CO[j] * step_O
    return symbols_CO
