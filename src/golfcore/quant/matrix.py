"""Check a matrix before quantization, choose the step size of each row, and compute the entropy of its symbols.

A step size is ``clip / q`` with ``q = 2^(bits-1) - 1``, rounded before it is used. The clip of a row is

- ``sigma``: k standard deviations (SDClip, entry 2026-04-05: k sets the bytes directly, since the coded size of a
  Gaussian row is ``bits - log2(k) + constant``);
- ``absmax``: its largest magnitude;
- ``percentile``: the 99.99984th percentile of its magnitudes, as the contest's int8 baseline.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from golfcore.container import grid
from golfcore.errors import InputError

PERCENTILE = 0.9999984
FP16_MAX = 65504.0


@dataclass(frozen=True)
class Quantized:
    """A matrix as symbols and step sizes: ``w_OI ~ symbols_OI * scale_O * column_I``; int8 and fp16.

    With ``trellis`` bits of state the symbols are trellis-coded (``golfcore.container.trellis``). Without ``column_I``
    the column factors are 1.
    """

    symbols_OI: Tensor
    scale_O: Tensor
    bits: int
    trellis: int = 0
    column_I: Tensor | None = None


def check_finite(values: Tensor, name: str) -> Tensor:
    """Return the values in fp32 on the CPU.

    Raises:
        InputError: a value is NaN or infinite, or too large for fp16.
    """
    values = values.detach().float().cpu()
    if not torch.isfinite(values).all() or (values.numel() and float(values.abs().max()) > FP16_MAX):
        raise InputError(f"{name}: holds NaN, infinite or too large weights; the training run diverged")
    return values


def check_matrix(weight_OI: Tensor, name: str) -> Tensor:
    """Return the matrix in fp32 on the CPU.

    Raises:
        InputError: not a matrix, or a weight is NaN or infinite.
    """
    if weight_OI.ndim != 2:
        raise InputError(f"{name}: shape {tuple(weight_OI.shape)}, expected a matrix [out, in]")
    weight_OI = weight_OI.detach().float().cpu()
    if weight_OI.numel() and not all(math.isfinite(x) for x in weight_OI.aminmax()):
        raise InputError(f"{name}: holds NaN or infinite weights; the training run diverged")
    return weight_OI


def row_clip(weight_OI: Tensor, clip: str, k: float) -> Tensor:
    """Return the largest magnitude that each row keeps, fp32 [O]; ``clip`` is sigma, absmax or percentile."""
    if clip == "sigma":
        centered_OI = weight_OI - weight_OI.mean(1, keepdim=True)
        size_O: Tensor = torch.linalg.vector_norm(centered_OI, dim=1)  # 20 times as fast as torch's std
        return size_O * (k / math.sqrt(max(weight_OI.size(1), 1)))
    if clip == "absmax":
        return weight_OI.abs().amax(dim=1)
    return torch.quantile(weight_OI.abs(), PERCENTILE, dim=1)


def row_step(weight_OI: Tensor, *, bits: int, clip: str, k: float, scales: str, name: str) -> Tensor:
    """Return the step size of each row, fp16 [O]; the arguments are those of ``quantize_rows``.

    Raises:
        InputError: a row's step size does not fit fp16.
    """
    exact_O = row_clip(weight_OI, clip, k) / (2 ** (bits - 1) - 1)
    return rounded_step(exact_O, scales, up=clip != "sigma", name=name)


def rounded_step(exact_O: Tensor, scales: str, *, up: bool, name: str) -> Tensor:
    log8 = scales == "log8"
    scale_O = torch.from_numpy(grid.nearest(exact_O.numpy(), up=up)) if log8 else exact_O.to(torch.float16)
    if not torch.isfinite(scale_O).all():
        raise InputError(f"{name}: a row's scale is above {FP16_MAX:.0f} and does not fit fp16")
    return scale_O


def gaussian_bits(bits: int, k: float) -> float:
    """Return the entropy of symbols of Gaussian rows under ``sigma``: the bits per weight of an ideal order-0 coder."""
    q = 2 ** (bits - 1) - 1
    edges = [-math.inf, *((i + 0.5) * k / q for i in range(-q, q)), math.inf]
    below = [0.5 * (1 + math.erf(edge / math.sqrt(2))) for edge in edges]
    return -sum(p * math.log2(p) for a, b in pairwise(below) if (p := b - a) > 0)
