"""Quantize to few bits: ternary and binary matrices with a scale per group of columns, fp8 for the other tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from golfcore.errors import InputError
from golfcore.quant.matrix import FP16_MAX, check_matrix

FP8_MAX = 448.0


def grouped(weight_OI: Tensor, group: int, name: str) -> Tensor:
    """Reshape a matrix to [O, G, group].

    Raises:
        InputError: the number of columns is not a multiple of ``group``.
    """
    if weight_OI.size(1) % group:
        raise InputError(
            f"{name}: {weight_OI.size(1)} columns are not a multiple of quant.group = {group}; set it to a divisor of "
            f"{weight_OI.size(1)}"
        )
    return weight_OI.reshape(len(weight_OI), -1, group)


def ternary_codes(weight_OGC: Tensor, scale_OG: Tensor) -> Tensor:
    """Return the codes -1, 0 or 1, ``clip(round(w / scale))``, in the dtype of the weights; 0 if a scale is 0."""
    safe_OG1 = torch.where(scale_OG == 0, torch.ones_like(scale_OG), scale_OG)[..., None]
    return (weight_OGC / safe_OG1).round().clamp(-1, 1)


def ternary(weight_OI: Tensor, *, group: int, trained: bool = False, name: str = "weight") -> tuple[Tensor, Tensor]:
    """Quantize a matrix to int8 codes [O, I] of -1, 0 and 1, and fp16 scales [O, G].

    Codes are chosen with ``scale = mean |w|`` (BitNet b1.58, arXiv:2402.17764). A model that was trained with these
    codes has seen ``scale * code`` in its forward pass, so this scale is stored. The weights of any other model would
    come back too small, since the mean includes weights that become zero: its scale is the least-squares one,
    ``<w, c> / <c, c>``, the shrinkage fix.

    Args:
        trained: whether the weights were trained under ``quant.qat = "ste"``.

    Raises:
        InputError: not a matrix, weights that are NaN or infinite, or columns that are not a multiple of ``group``.
    """
    weight_OGC = grouped(check_matrix(weight_OI, name), group, name)
    mean_OG = weight_OGC.abs().mean(2)
    scale_OG = mean_OG.to(torch.float16)
    code_OGC = ternary_codes(weight_OGC, scale_OG.float())
    if not trained:
        kept_OG = code_OGC.square().sum(2)
        scale_OG = torch.where(kept_OG > 0, (weight_OGC * code_OGC).sum(2) / kept_OG.clamp(min=1), mean_OG).half()
    _check_scale(scale_OG, name)
    return code_OGC.flatten(1).to(torch.int8), scale_OG


def binary(weight_OI: Tensor, *, group: int, name: str = "weight") -> tuple[Tensor, Tensor]:
    """Quantize a matrix to one-bit symbols [O, I], -1 for negative weights and else 0, and fp16 scales [O, G].

    The scale is mean |w|, which is the least-squares scale of signs, so nothing shrinks.

    Raises:
        InputError: as for ``ternary``.
    """
    weight_OGC = grouped(check_matrix(weight_OI, name), group, name)
    scale_OG = weight_OGC.abs().mean(2).to(torch.float16)
    _check_scale(scale_OG, name)
    return -(weight_OGC < 0).flatten(1).to(torch.int8), scale_OG


def fp8(values: Tensor, name: str = "weight") -> tuple[Tensor, Tensor | None]:
    """Quantize to e4m3 patterns (uint8); a matrix also gets fp16 row scales that put its largest magnitude at 448.

    Raises:
        InputError: values that are NaN or infinite.
    """
    values = values.detach().float().cpu()
    if not torch.isfinite(values).all():
        raise InputError(f"{name}: holds NaN or infinite weights; the training run diverged")
    scale_O = None
    if values.ndim == 2:
        scale_O = (values.abs().amax(1) / FP8_MAX).to(torch.float16)
        _check_scale(scale_O, name)
        step_O = scale_O.float()
        values = values * torch.where(step_O > 0, 1 / step_O, torch.zeros_like(step_O))[:, None]
    return values.clamp(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn).view(torch.uint8), scale_O


def _check_scale(scale: Tensor, name: str) -> None:
    if not torch.isfinite(scale).all():
        raise InputError(f"{name}: a scale is above {FP16_MAX:.0f} and does not fit fp16")
