"""From a trained model to what is stored (docs/quantisation.md).

``rtn`` rounds, ``gptq`` rounds or searches a trellis with error feedback, ``lowbit`` makes ternary and binary matrices,
``lqer`` adds corrections, ``fit`` chooses steps for a number of bytes, ``qat`` shows the training what is to come,
``measure`` says what it cost.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from golfcore.artifact.model_io import StoredTensor
from golfcore.config import QuantConfig, parse_group_k
from golfcore.errors import InputError, UsageError
from golfcore.model import Family, Role
from golfcore.progress import Tick, silent
from golfcore.quant.gptq import Coding, Factor, factorise_all, quantise_layers
from golfcore.quant.hessian import Hessians
from golfcore.quant.lowbit import binary, fp8, ternary
from golfcore.quant.lqer import corrected
from golfcore.quant.measure import Probe, decibel, hessian_error, replaced
from golfcore.quant.rtn import best_clip, check_finite, gaussian_bits, quantise_rows
from golfcore.quant.threads import in_threads
from golfcore.suggest import nearest

SCALE_BYTES = {"log8": 0.4, "fp16": 1.3}  # a row: measured 2.1 to 3.2 and about 10 bits
LARGEST_STEP = 2.0  # standard deviations: 1.2 bits a weight, where the search for k ends
KINDS = ("matrix", "embedding", "head", "vector")


def bits_and_clip(kind: str, config: QuantConfig, name: str) -> tuple[int, str, float]:
    """``(bits, clip, k)`` of a parameter of this kind; bits 0 means fp16 or fp8. ``name``: for the error.

    Raises:
        InputError: a kind that the quantiser does not know.
    """
    if kind not in KINDS:
        raise InputError(
            f"{name}: its role {kind!r} is unknown to the quantiser; expected one of {', '.join(KINDS)}, as "
            "parameter_roles() says"
        )
    if kind == "matrix":
        return config.matrix_bits, config.matrix_clip, config.matrix_k
    if kind == "vector" or (config.format != "int" and config.rest == "fp8"):
        return 0, "", 0.0
    return config.embed_bits, config.embed_clip, config.embed_k


def codings(roles: Mapping[str, Role], config: QuantConfig) -> dict[str, Coding]:
    """How each tensor is coded that is not stored in fp16; a k in ``quant.group_k`` goes before the kind's.

    Raises:
        UsageError: ``quant.group_k`` names a group that the model does not have.
    """
    of_group = dict(map(parse_group_k, config.group_k))
    known = {role.group for role in roles.values()}
    for group in of_group:
        if group not in known and group not in roles:
            raise UsageError(
                f"quant.group_k names {group!r}, expected one of {', '.join(sorted(known))}, or a tensor"
                f"{nearest(group, [*known, *roles])}"
            )
    found = {}
    for name, role in roles.items():
        bits, clip, k = bits_and_clip(role.kind, config, name)
        if bits:
            trellis = config.states.bit_length() - 1 if config.states else 0
            k = of_group.get(name, of_group.get(role.group, k))
            found[name] = Coding(bits, clip, k, trellis, config.columns, config.rate, config.scales)
    return found


def quantise_state(
    state: Mapping[str, Tensor], roles: Mapping[str, Role], config: QuantConfig, hessians: Hessians | None = None,
    factors: Mapping[str, Factor] | None = None, tick: Tick = silent,
) -> list[StoredTensor]:  # fmt: skip
    """Every parameter as it will be stored, in the order of ``roles``; the same for any number of threads.

    Args:
        state: parameters by name.
        roles: as from ``parameter_roles()``.
        config: the method, bits and clips.
        hessians: of the layers' inputs, for method gptq.
        factors: of those Hessians, where they are at hand; computed otherwise.
        tick: told about progress.

    Raises:
        InputError: weights that are NaN or infinite, a Hessian that is not positive definite; names the tensor.
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
        quantised = best_clip(weight, bits=bits, scales=scales, name=name)
    else:
        quantised = quantise_rows(weight, bits=bits, clip=clip, k=k, scales=scales, name=name)
    return StoredTensor(name, role.group, quantised.symbols_OI, quantised.scale_O, bits)


def _with_feedback(
    state: Mapping[str, Tensor], roles: Mapping[str, Role], coded: Mapping[str, Coding], config: QuantConfig,
    hessians: Hessians | None, factors: Mapping[str, Factor] | None, tick: Tick,
) -> dict[str, StoredTensor]:  # fmt: skip
    if hessians is None:
        raise InputError(
            "method gptq needs the Hessians of the layers' inputs; collect them, or use quant.method = rtn"
        )
    if factors is None:
        factors = factorise_all(hessians, damping=config.damping)
    quantised = quantise_layers(state, factors, hessians.key, coded, tick=tick)
    bits: dict[str, int] = {}  # what holds the largest symbol of a group, since a group is coded as one
    for name, found in quantised.items():
        group = roles[name].group
        largest = int(found.symbols_OI.abs().max()) if found.symbols_OI.numel() else 0
        bits[group] = max(bits.get(group, 2), largest.bit_length() + 1)
    matrices = {}
    for name, found in quantised.items():
        group = roles[name].group
        item = StoredTensor(
            name, group, found.symbols_OI, found.scale_O, bits[group], found.trellis, found.column_I
        )  # fmt: skip
        matrices[name] = item
    return matrices | _corrections(matrices, state, config, hessians)


def _corrections(
    matrices: Mapping[str, StoredTensor], state: Mapping[str, Tensor], config: QuantConfig, hessians: Hessians
) -> dict[str, StoredTensor]:  # fmt: skip
    """Those of the matrices that are better stored with a low-rank correction, corrected."""
    jobs: dict[str, Callable[[], StoredTensor]] = {}
    for name, item in matrices.items():
        hessian_II = hessians.of(name)
        if config.lqer_rank and hessian_II is not None:
            jobs[name] = partial(
                corrected, item, state[name], hessian_II, rank=config.lqer_rank, damping=config.damping
            )
    return in_threads(jobs, {name: float(state[name].numel()) for name in jobs})


def error_rows(
    state: Mapping[str, Tensor], stored: list[StoredTensor], hessians: Hessians | None = None,
    probe: Probe | None = None, module: Any = None, tick: Tick = silent,
) -> list[dict[str, object]]:  # fmt: skip
    """A row a tensor: what quantising it cost.

    Args:
        state: the weights before.
        stored: as they are stored.
        hessians: for ``hessian_db``.
        probe, module: for ``kl`` and ``bpb`` of the model in which this tensor alone is quantised.
        tick: told about tensors.

    Returns:
        ``name``, ``role``, ``params``, ``bits`` (16 for fp16, 8 for fp8), ``states``; ``error_db``, ``10 log10(|w -
        w_q|^2 / |w|^2)``, and ``hessian_db``, the same of the layer's output, None where nothing was lost or is known;
        ``kl`` in nats a token and ``bpb``, None without a probe.
    """
    rows: list[dict[str, object]] = []
    for at, item in enumerate(stored):
        weight = state[item.name].detach().float().cpu()
        value = item.dequantise()
        hessian_II = None if hessians is None else hessians.of(item.name)
        row: dict[str, object] = {
            "name": item.name, "role": item.group, "params": weight.numel(),
            "bits": item.bits or 8 * item.values.element_size(), "states": 1 << item.trellis if item.trellis else 0,
            "error_db": decibel(hessian_error(weight[None] if weight.ndim != 2 else weight, weight - value, None)),
            "hessian_db": None if hessian_II is None else decibel(hessian_error(weight, weight - value, hessian_II)),
            "kl": None, "bpb": None,
        }  # fmt: skip
        if probe is not None and item.bits:
            with replaced(module, {item.name: value}):
                row |= dataclasses.asdict(probe.cost(module))
        rows.append(row)
        tick(at + 1, len(stored), "measuring")
    return rows


def predict_bytes(family: Family, model_config: object, vocab_size: int, config: QuantConfig) -> int:
    """Weight bytes before training, from shapes alone: Gaussian rows at their entropy; absmax is taken as 4 sigma.

    The coders come within 0.1 % of that entropy, and below it where columns differ. With ``quant.fit`` the least that
    the search would go to.
    """
    step = LARGEST_STEP if config.fit else 0.0
    counts = family.counts(model_config, vocab_size).items()
    return round(sum(group_bytes(group, *count, config, step=step) for group, count in counts))


def group_bytes(
    group: str, kind: str, parameters: int, rows: int, config: QuantConfig, *, step: float = 0.0, sigmas: float = 4.0,
    row_bytes: float = -1.0,
) -> float:  # fmt: skip
    """What a group of parameters takes on Gaussian rows.

    Args:
        group, kind, parameters, rows: as ``Family.counts`` has them.
        config: the quantiser.
        step: in standard deviations of a row, where the search chose it; 0: the config's.
        sigmas: where absmax and percentile clip.
        row_bytes: of a row's scale; below 0: as measured.
    """
    bits, clip, k = bits_and_clip(kind, config, group)
    if bits == 0:
        return (1 if config.rest == "fp8" and config.format != "int" else 2) * parameters
    if kind == "matrix" and config.format != "int":
        return parameters * (1.585 if config.format == "ternary" else 1.0) / 8 + 2 * parameters / config.group
    if step:
        k = step * ((1 << (bits - 1)) - 1)
    else:
        k = dict(map(parse_group_k, config.group_k)).get(group, k if clip == "sigma" else sigmas)
    return parameters * gaussian_bits(bits, k) / 8 + (SCALE_BYTES[config.scales] if row_bytes < 0 else row_bytes) * rows
