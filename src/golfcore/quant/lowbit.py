"""Few bits: ternary and binary matrices with a scale for each group of columns, and fp8 for what stays beside them."""

from __future__ import annotations

import torch
from torch import Tensor

from golfcore.errors import InputError
from golfcore.quant.matrix import FP16_MAX, check_matrix

FP8_MAX = 448.0


def grouped(weight_OI: Tensor, group: int, name: str) -> Tensor:
    """The matrix as [O, G, group].

    Raises:
        InputError: the columns are no multiple of ``group``.
    """
    if weight_OI.size(1) % group:
        raise InputError(
            f"{name}: {weight_OI.size(1)} columns are no multiple of quant.group = {group}; set it to a divisor of "
            f"{weight_OI.size(1)}"
        )
    return weight_OI.reshape(len(weight_OI), -1, group)


def ternary_codes(weight_OGC: Tensor, scale_OG: Tensor) -> Tensor:
    """-1, 0 or 1: ``clip(round(w / scale))``; zeros where a scale is 0. In the dtype of the weights."""
    safe_OG1 = torch.where(scale_OG == 0, torch.ones_like(scale_OG), scale_OG)[..., None]
    return (weight_OGC / safe_OG1).round().clamp(-1, 1)


def ternary(weight_OI: Tensor, *, group: int, trained: bool = False, name: str = "weight") -> tuple[Tensor, Tensor]:
    """int8 codes [O, I] and fp16 scales [O, G].

    Codes are those of ``scale = mean |w|`` (BitNet b1.58, arXiv:2402.17764). A model that was trained with them has
    seen ``scale * code`` in its forward pass, and that is stored. Any other would be read back smaller than it is,
    since the mean is taken over weights that become zero too: there the scale is the least-squares one,
    ``<w, c> / <c, c>``, the shrinkage fix.

    Args:
        trained: the weights were trained under ``quant.qat = "ste"``.

    Raises:
        InputError: weights that are NaN or infinite or no matrix, or columns that are no multiple of ``group``.
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
    """Symbols of one bit [O, I], -1 for a negative weight and 0 for any other, and fp16 scales [O, G], mean |w|.

    The mean is the least-squares scale of signs, so nothing shrinks.

    Raises:
        InputError: as ``ternary``.
    """
    weight_OGC = grouped(check_matrix(weight_OI, name), group, name)
    scale_OG = weight_OGC.abs().mean(2).to(torch.float16)
    _check_scale(scale_OG, name)
    return -(weight_OGC < 0).flatten(1).to(torch.int8), scale_OG


def fp8(values: Tensor, name: str = "weight") -> tuple[Tensor, Tensor | None]:
    """e4m3 patterns (uint8), and for a matrix fp16 row scales that put its largest magnitude at 448.

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
