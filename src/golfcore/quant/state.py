"""Quantize all parameters of a model by the recipe's method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor

from golfcore.artifact.model_io import StoredTensor
from golfcore.config import QuantConfig
from golfcore.errors import InputError
from golfcore.model import Role
from golfcore.progress import Tick, silent
from golfcore.quant.codings import codings
from golfcore.quant.gptq import Coding, Factor, factorize_all, quantize_layers
from golfcore.quant.hessian import Hessians
from golfcore.quant.lowbit import binary, fp8, ternary
from golfcore.quant.lqer import corrected
from golfcore.quant.matrix import check_finite
from golfcore.quant.rtn import best_clip, quantize_rows
from golfcore.quant.threads import in_threads


def quantize_state(
    state: Mapping[str, Tensor], roles: Mapping[str, Role], config: QuantConfig, hessians: Hessians | None = None,
    factors: Mapping[str, Factor] | None = None, tick: Tick = silent,
) -> list[StoredTensor]:  # fmt: skip
    """Quantize every parameter, in the order of ``roles``; the number of threads changes no result.

    Args:
        state: parameters by name.
        roles: from ``parameter_roles()``.
        config: the method, bits and clips.
        hessians: Hessians of the layers' inputs, for method gptq.
        factors: factors of those Hessians, if they are at hand; computed otherwise.
        tick: called with the progress so far.

    Raises:
        InputError: weights that are NaN or infinite, or a Hessian that is not positive definite; names the tensor.
    """
    coded = codings(roles, config)
    if config.method == "gptq":
        matrices = _with_feedback(state, roles, coded, config, hessians, factors, tick)
    else:
        matrices = {name: _rounded(name, state[name], roles[name], coded[name], config) for name in coded}
    stored = []
    for name, role in roles.items():
        if name in matrices:
            stored.append(matrices[name])
        elif config.rest == "fp8" and config.format != "int":
            stored.append(StoredTensor(name, role.group, *fp8(state[name], name)))
        else:
            stored.append(StoredTensor(name, role.group, check_finite(state[name], name).half()))
    return stored


def _rounded(name: str, weight: Tensor, role: Role, coding: Coding, config: QuantConfig) -> StoredTensor:
    if role.kind == "matrix" and config.format == "ternary":
        codes_OI, scale_OG = ternary(weight, group=config.group, trained=config.qat == "ste", name=name)
        return StoredTensor(name, role.group, codes_OI, scale_OG, 2)
    if role.kind == "matrix" and config.format == "binary":
        signs_OI, scale_OG = binary(weight, group=config.group, name=name)
        return StoredTensor(name, role.group, signs_OI, scale_OG, 1)
    bits, clip, k, scales = coding.bits, coding.clip, coding.k, coding.scales
    if config.method == "lite":
        quantized = best_clip(weight, bits=bits, scales=scales, name=name)
    else:
        quantized = quantize_rows(weight, bits=bits, clip=clip, k=k, scales=scales, name=name)
    return StoredTensor(name, role.group, quantized.symbols_OI, quantized.scale_O, bits)


def _with_feedback(
    state: Mapping[str, Tensor], roles: Mapping[str, Role], coded: Mapping[str, Coding], config: QuantConfig,
    hessians: Hessians | None, factors: Mapping[str, Factor] | None, tick: Tick,
) -> dict[str, StoredTensor]:  # fmt: skip
    if hessians is None:
        raise InputError(
            "method gptq needs the Hessians of the layers' inputs; collect them, or use quant.method = rtn"
        )
    if factors is None:
        factors = factorize_all(hessians, damping=config.damping)
    quantized = quantize_layers(state, factors, hessians.key, coded, tick=tick)
    bits: dict[str, int] = {}  # what holds the largest symbol of a group, since a group is coded as one
    for name, found in quantized.items():
        group = roles[name].group
        largest = int(found.symbols_OI.abs().max()) if found.symbols_OI.numel() else 0
        bits[group] = max(bits.get(group, 2), largest.bit_length() + 1)
    matrices = {}
    for name, found in quantized.items():
        group = roles[name].group
        item = StoredTensor(
            name, group, found.symbols_OI, found.scale_O, bits[group], found.trellis, found.column_I
        )  # fmt: skip
        matrices[name] = item
    return matrices | _corrections(matrices, state, config, hessians)


def _corrections(
    matrices: Mapping[str, StoredTensor], state: Mapping[str, Tensor], config: QuantConfig, hessians: Hessians
) -> dict[str, StoredTensor]:  # fmt: skip
    """Return the matrices that are better stored with a low-rank correction, with it."""
    jobs: dict[str, Callable[[], StoredTensor]] = {}
    for name, item in matrices.items():
        hessian_II = hessians.of(name)
        if config.lqer_rank and hessian_II is not None:
            jobs[name] = partial(
                corrected, item, state[name], hessian_II, rank=config.lqer_rank, damping=config.damping
            )
    return in_threads(jobs, {name: float(state[name].numel()) for name in jobs})
