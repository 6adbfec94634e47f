"""Collect the Hessians of layers: H = sum x x^T of a layer's inputs x over calibration tokens.

The model's ``taps()`` say which parameters have an H. Layers that read the same input share one (q, k and v); a layer
that runs several times in a pass adds each time. Shapes: N rows of T tokens, I input width.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from golfcore.errors import InputError
from golfcore.model.interface import LanguageModel
from golfcore.progress import Tick, silent


@dataclass(frozen=True)
class Hessians:
    """Sums of outer products, on the CPU.

    Attributes:
        matrix: fp32 [I, I] by key; the key is the name of the first parameter that uses the matrix.
        key: the key of each parameter that has a Hessian.
        tokens: number of tokens that went through the model.
    """

    matrix: dict[str, Tensor]
    key: dict[str, str]
    tokens: int

    def of(self, name: str) -> Tensor | None:
        """Return the matrix of a parameter, or None if it has no Hessian."""
        return self.matrix[self.key[name]] if name in self.key else None


@torch.no_grad()
def collect_hessians(
    module: LanguageModel, ids_NT: Tensor, *, batch_tokens: int = 8192, seconds: float = math.inf,
    combine: Callable[[Tensor], Tensor] | None = None, tick: Tick = silent,
) -> Hessians:  # fmt: skip
    """Run ``module`` over ``ids_NT`` and sum the outer products of its layers' inputs.

    Args:
        module: the model; it is left unchanged, in evaluation mode.
        ids_NT: int64, this rank's rows.
        batch_tokens: tokens per forward pass.
        seconds: after the first, no pass is begun that might end later than this.
        combine: sums a tensor over the ranks, in place.
        tick: called with the number of rows so far.

    Raises:
        InputError: no tokens, or activations that are NaN or infinite; the message names the tensor.
    """
    if ids_NT.numel() == 0:
        raise InputError("the calibration text has no tokens: give text, or set quant.calibration_tokens above 0")
    module.eval()
    device = next(module.parameters()).device
    rows, started, seen = max(1, batch_tokens // ids_NT.size(1)), time.monotonic(), 0
    key = _shared_inputs(module, ids_NT[:1].to(device))
    matrix: dict[str, Tensor] = {}

    def add(name: str, x: Tensor) -> None:
        if key.get(name) != name:
            return
        x_NI = x.detach().flatten(0, -2).float()
        if name not in matrix:
            matrix[name] = torch.zeros(x_NI.size(1), x_NI.size(1), device=device)
        matrix[name].addmm_(x_NI.t(), x_NI)

    with _tapped(module.taps(), add):
        for start in range(0, ids_NT.size(0), rows):
            piece = ids_NT[start : start + rows].to(device)
            module.logits(module.new_state(piece.size(0)), piece)
            seen += piece.numel()
            tick(seen, ids_NT.numel(), "Hessians")
            spent = time.monotonic() - started
            if spent * (1 + 1.5 * rows * ids_NT.size(1) / seen) > seconds:
                break
    for name, total in matrix.items():
        if combine is not None:
            combine(total)
        if not torch.isfinite(total).all():
            raise InputError(
                f"{name}: its inputs are NaN or infinite on the calibration text; the training run diverged"
            )
    tokens = torch.tensor(float(seen), device=device)
    count = int(combine(tokens) if combine is not None else tokens)
    return Hessians({name: total.cpu() for name, total in matrix.items()}, key, count)


def _shared_inputs(module: LanguageModel, ids_1T: Tensor) -> dict[str, str]:
    """Return for each parameter the first one whose layer gets the very same input tensors."""
    seen: dict[str, list[Tensor]] = {}
    with _tapped(module.taps(), lambda name, x: seen.setdefault(name, []).append(x)):
        module.logits(module.new_state(1), ids_1T)
    first: dict[tuple[int, ...], str] = {}  # the tensors are kept alive by `seen`, so ids are theirs alone
    return {name: first.setdefault(tuple(map(id, inputs)), name) for name, inputs in seen.items()}


@contextmanager
def _tapped(taps: Mapping[str, nn.Module], see: Callable[[str, Tensor], object]) -> Iterator[None]:
    def hook(name: str) -> Callable[[nn.Module, Any], None]:
        return lambda _, inputs: (see(name, inputs[0]), None)[1]

    handles = [tap.register_forward_pre_hook(hook(name)) for name, tap in taps.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
