"""Train with quantization in mind: the forward pass sees other weights, and the optimizer moves the real ones.

- ``ste``: each weight as rounding would store it, on the stored grid of scales, with the gradient of the identity
  (straight-through, arXiv:1308.3432; entries 2026-03-19 on). Also of ternary and binary matrices.
- ``noise``: uniform noise of one step on every weight, for layers that run several times in a pass, where an error
  meets itself again (entry 2026-03-21).

The two forward passes, with and without, are two functions: a flag inside one would be frozen when it is compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from golfcore.config import QuantConfig
from golfcore.model import Role
from golfcore.model.interface import Batch, Context, LanguageModel
from golfcore.ops import fake_quantize
from golfcore.quant.codings import bits_and_clip
from golfcore.quant.lowbit import grouped, ternary_codes
from golfcore.quant.matrix import row_clip

Loss = Callable[[Batch, Context], tuple[Tensor, dict[str, Tensor]]]
Transform = Callable[[Tensor], Tensor]


def aware_loss(module: LanguageModel, roles: Mapping[str, Role], config: QuantConfig) -> Loss:
    """Return ``module.loss`` with fake-quantized or noisy values of every parameter that ``config`` quantizes."""
    changed = transforms(roles, config)

    def loss(batch: Batch, context: Context) -> tuple[Tensor, dict[str, Tensor]]:
        seen = {name: changed[name](p) for name, p in module.named_parameters() if name in changed}
        result: tuple[Tensor, dict[str, Tensor]] = torch.func.functional_call(module, seen, (batch, context))
        return result

    return loss


@torch.no_grad()
def as_trained(
    weights: Mapping[str, Tensor], roles: Mapping[str, Role], config: QuantConfig
) -> dict[str, Tensor]:  # fmt: skip
    """Return the parameters that the forward pass replaces by fake-quantized values (``qat = "ste"``).

    The result holds these values, and is empty for every other model. Measure the loss by quantization against them:
    the forward pass has never seen the optimizer's own weights.
    """
    changed = transforms(roles, config) if config.qat == "ste" else {}
    return {name: transform(weights[name]) for name, transform in changed.items()}


def transforms(roles: Mapping[str, Role], config: QuantConfig) -> dict[str, Transform]:
    """Return the function that the forward pass applies to each parameter that it does not see unchanged."""
    found: dict[str, Transform] = {}
    for name, role in roles.items():
        bits, clip, k = bits_and_clip(role.kind, config, name)
        if role.kind == "matrix" and config.format != "int":
            found[name] = partial(_in_groups, name=name, group=config.group, binary=config.format == "binary")
        elif bits:
            found[name] = partial(
                _in_rows, bits=bits, clip=clip, k=k, scales=config.scales, noisy=config.qat == "noise"
            )
        elif role.kind != "vector":
            found[name] = _in_fp8
    return found


def _in_rows(weight_OI: Tensor, *, bits: int, clip: str, k: float, scales: str, noisy: bool) -> Tensor:
    with torch.no_grad():
        step_O1 = row_clip(weight_OI.detach().float(), clip, k)[:, None] / (2 ** (bits - 1) - 1)
        if scales == "log8":
            eighths_O1 = 8 * step_O1.clamp(min=2.0**-14).log2()
            step_O1 = torch.exp2((eighths_O1.round() if clip == "sigma" else eighths_O1.ceil()) / 8)
        else:
            step_O1 = step_O1.half().float()
        noise_OI = (torch.rand_like(weight_OI) - 0.5) * step_O1 if noisy else None
    return fake_quantize(weight_OI, step_O1, f"int{bits}") if noise_OI is None else weight_OI + noise_OI


def _in_groups(weight_OI: Tensor, *, name: str, group: int, binary: bool) -> Tensor:
    with torch.no_grad():
        weight_OGC = grouped(weight_OI.detach().float(), group, name)
        scale_OG = weight_OGC.abs().mean(2).half().float()
        code_OGC = torch.where(weight_OGC < 0, -1.0, 1.0) if binary else ternary_codes(weight_OGC, scale_OG)
        stored_OI = (code_OGC * scale_OG[..., None]).flatten(1)
    return weight_OI + (stored_OI - weight_OI).detach()


def _in_fp8(weight_OI: Tensor) -> Tensor:
    """Round to three bits of mantissa relative to the row's largest magnitude, which lies at 448."""
    with torch.no_grad():
        scale_O1 = (weight_OI.detach().float().abs().amax(1, keepdim=True) / 448).half().float()
        scale_O1 = torch.where(scale_O1 == 0, torch.ones_like(scale_O1), scale_O1)
        _, exponent_OI = torch.frexp((weight_OI.detach().float() / scale_O1).clamp(-448, 448))
        unit_OI = torch.exp2(exponent_OI.clamp(min=-5).float() - 4)  # of the last bit of a number in [2^(e-1), 2^e)
        stored_OI = (weight_OI.detach().float() / scale_O1 / unit_OI).round() * unit_OI * scale_O1
    return weight_OI + (stored_OI - weight_OI).detach()
