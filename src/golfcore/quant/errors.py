"""Measure the error of each quantized tensor."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from golfcore.artifact.model_io import StoredTensor
from golfcore.progress import Tick, silent
from golfcore.quant.hessian import Hessians
from golfcore.quant.measure import Probe, decibel, hessian_error, replaced


def error_rows(
    state: Mapping[str, Tensor], stored: list[StoredTensor], hessians: Hessians | None = None,
    probe: Probe | None = None, module: Any = None, tick: Tick = silent,
) -> list[dict[str, object]]:  # fmt: skip
    """Measure the error of each quantized tensor, as one row per tensor.

    Args:
        state: the weights before quantization, by name.
        stored: the quantized tensors.
        hessians: needed for ``hessian_db``.
        probe, module: needed for ``kl`` and ``bpb`` of the model in which only this tensor is quantized.
        tick: called with the number of tensors so far.

    Returns:
        Rows of ``name``, ``role``, ``params``, ``bits`` (16 for fp16, 8 for fp8), ``states``; ``error_db``, ``10
        log10(|w - w_q|^2 / |w|^2)``, and ``hessian_db``, the same of the layer's output, None if the error is 0 or
        unknown; ``kl`` in nats per token and ``bpb``, None without a probe.
    """
    rows: list[dict[str, object]] = []
    for at, item in enumerate(stored):
        weight = state[item.name].detach().float().cpu()
        value = item.dequantize()
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
