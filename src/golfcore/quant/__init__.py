"""From a trained model to what is stored: quantised matrices, fp16 for the rest.

A finer method joins as a module beside ``rtn`` that returns the same ``Quantised``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from golfcore.artifact.model_io import StoredTensor
from golfcore.config import QuantConfig
from golfcore.model import Family, Role
from golfcore.quant.rtn import gaussian_bits, quantise_rows

SCALE_BYTES = {"log8": 0.4, "fp16": 1.3}  # a row: measured 2.1 to 3.2 and about 10 bits


def bits_and_clip(kind: str, config: QuantConfig) -> tuple[int, str, float]:
    """``(bits, clip, k)`` of a parameter of this kind; bits 0 means fp16."""
    if kind == "matrix":
        return config.matrix_bits, config.matrix_clip, config.matrix_k
    if kind in ("embedding", "head"):
        return config.embed_bits, config.embed_clip, config.embed_k
    return 0, "", 0.0


def quantise_state(state: Mapping[str, Tensor], roles: Mapping[str, Role], config: QuantConfig) -> list[StoredTensor]:
    """Every parameter as it will be stored, in the order of ``state``.

    Args:
        state: parameters by name.
        roles: as from ``parameter_roles()``.
        config: bits and clips.
    """
    stored = []
    for name, role in roles.items():
        bits, clip, k = bits_and_clip(role.kind, config)
        if bits == 0:
            stored.append(StoredTensor(name, role.group, state[name].detach().cpu().to(torch.float16)))
        else:
            quantised = quantise_rows(state[name], bits=bits, clip=clip, k=k, scales=config.scales, name=name)
            stored.append(StoredTensor(name, role.group, quantised.symbols_OI, quantised.scale_O, bits))
    return stored


def error_rows(state: Mapping[str, Tensor], stored: list[StoredTensor]) -> list[dict[str, object]]:
    """A row a tensor: what rounding cost it.

    ``error_db`` is ``10 log10(|w - w_q|^2 / |w|^2)``, None where nothing was lost.
    """
    rows: list[dict[str, object]] = []
    for item in stored:
        weight = state[item.name].detach().float().cpu()
        lost = float((weight - item.dequantise()).square().sum())
        kept = float(weight.square().sum())
        rows.append(
            {
                "name": item.name, "role": item.group, "params": weight.numel(), "bits": item.bits or 16,
                "error_db": 10 * math.log10(lost / kept) if lost > 0 and kept > 0 else None,
            }
        )  # fmt: skip
    return rows


def predict_bytes(family: Family, model_config: object, vocab_size: int, config: QuantConfig) -> int:
    """Weight bytes before training, from shapes alone: Gaussian rows at their entropy; absmax is taken as 4 sigma.

    The coders come within 0.1 % of that entropy, and below it where columns differ.
    """
    total = 0.0
    for kind, parameters, rows in family.counts(model_config, vocab_size).values():
        bits, clip, k = bits_and_clip(kind, config)
        if bits == 0:
            total += 2 * parameters
            continue
        per_weight = gaussian_bits(bits, k if clip == "sigma" else 4.0)
        total += parameters * per_weight / 8 + SCALE_BYTES[config.scales] * rows
    return round(total)
