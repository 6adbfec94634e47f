"""Quantize by rounding to nearest, with one scale per row.

``symbol = clip(round(w / s), -q, q)`` with ``q = 2^(bits-1) - 1`` and ``s = clip / q``; s is rounded before it is used,
to fp16 or to a grid of eight values to the octave, so ``symbol * s`` is what the reader gets. The grid moves a scale by
at most 4.4 %, which costs next to nothing, since the moved scale is used. If nothing may be clipped it is rounded up.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from golfcore.quant.matrix import Quantized, check_matrix, rounded_step, row_step

QUANTILES = (0.99999, 0.9999, 0.9995, 0.999)


def quantize_rows(
    weight_OI: Tensor, *, bits: int, clip: str, k: float, scales: str = "fp16", name: str = "weight"
) -> Quantized:
    """Round a matrix to ``bits`` bits per weight.

    Args:
        weight_OI: the matrix [O, I], of any float dtype.
        bits: 2 to 8.
        clip: sigma, absmax or percentile.
        k: the clip in standard deviations, if ``clip="sigma"``.
        scales: fp16, or log8 for the grid of ``golfcore.container.grid``.
        name: name of the matrix, for errors.

    Raises:
        InputError: not a matrix, or a weight is NaN, infinite or too large for an fp16 scale.
    """
    weight_OI = check_matrix(weight_OI, name)
    q = 2 ** (bits - 1) - 1
    scale_O = row_step(weight_OI, bits=bits, clip=clip, k=k, scales=scales, name=name)
    return Quantized(_symbols(weight_OI, scale_O, q), scale_O, bits)


def best_clip(weight_OI: Tensor, *, bits: int, scales: str = "fp16", name: str = "weight") -> Quantized:
    """Round a matrix, each row with the clip of least squared error out of five (GPTQ-lite, entry 2026-03-22).

    Candidates are the row's largest magnitude and the quantiles ``QUANTILES`` of its magnitudes.
    """
    weight_OI = check_matrix(weight_OI, name)
    q = 2 ** (bits - 1) - 1
    sizes_OI = weight_OI.abs()
    least_O = torch.full((len(weight_OI),), math.inf)
    symbols_OI, scale_O = torch.zeros(weight_OI.shape, dtype=torch.int8), torch.zeros(len(weight_OI)).half()
    for share in (1.0, *QUANTILES):
        exact_O = torch.quantile(sizes_OI, share, dim=1) / q
        tried_O = rounded_step(exact_O, scales, up=share == 1.0, name=name)
        tried_OI = _symbols(weight_OI, tried_O, q)
        error_O = (weight_OI - tried_OI * tried_O.float()[:, None]).square().sum(1)
        better_O = error_O < least_O
        least_O = torch.where(better_O, error_O, least_O)
        symbols_OI = torch.where(better_O[:, None], tried_OI, symbols_OI)
        scale_O = torch.where(better_O, tried_O, scale_O)
    return Quantized(symbols_OI, scale_O, bits)


def _symbols(weight_OI: Tensor, scale_O: Tensor, q: int) -> Tensor:
    step_O = scale_O.float()
    # A row of zeros, or one whose scale underflows, has scale 0 and only zero symbols.
    inverse_O = torch.where(step_O > 0, 1 / step_O, torch.zeros_like(step_O))
    return (weight_OI * inverse_O[:, None]).round_().clamp_(-q, q).to(torch.int8)
