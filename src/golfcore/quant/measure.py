"""Measure the loss by quantization: Hessian-weighted error, KL divergence from the trained model, bits per byte.

Shapes: N rows, T tokens, V vocabulary, O outputs, I inputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from golfcore.model.interface import LanguageModel


@contextmanager
def replaced(module: LanguageModel, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Yield the module with other values in some parameters, by name; the old values return at the end."""
    parameters = dict(module.named_parameters())
    before = {name: parameters[name].detach().clone() for name in weights}
    try:
        with torch.no_grad():
            for name, weight in weights.items():
                parameters[name].copy_(weight)
        yield
    finally:
        with torch.no_grad():
            for name, weight in before.items():
                parameters[name].copy_(weight)


def weights_on_cpu(module: LanguageModel) -> dict[str, Tensor]:
    """Return a copy of every parameter on the CPU, where weights are quantized, by name."""
    return {name: p.detach().to("cpu", copy=True) for name, p in module.named_parameters()}


@dataclass(frozen=True)
class Cost:
    """Loss of a changed model: ``kl`` in nats per token from the original; ``bpb`` of the changed model."""

    kl: float
    bpb: float | None


class Probe:
    """Tokens and the original model's distributions over them, with which changed weights are compared.

    Args:
        module: the model with its original weights.
        ids_NT: int64.
        text_bytes: bytes of text of all ids but each row's first, for bits per byte; 0: do not measure them.
        batch_tokens: tokens per forward pass.
    """

    def __init__(
        self, module: LanguageModel, ids_NT: Tensor, text_bytes: int = 0, batch_tokens: int = 8192
    ) -> None:  # fmt: skip
        self.ids_NT, self.rows, self.bytes = ids_NT, max(1, batch_tokens // ids_NT.size(1)), text_bytes
        self.before = list(self._log_probabilities(module))

    @torch.no_grad()
    def _log_probabilities(self, module: LanguageModel) -> Iterator[Tensor]:
        module.eval()
        device = next(module.parameters()).device
        for start in range(0, self.ids_NT.size(0), self.rows):
            piece = self.ids_NT[start : start + self.rows].to(device)
            logits_NTV, _ = module.logits(module.new_state(piece.size(0)), piece)
            yield torch.log_softmax(logits_NTV.float(), -1)

    def cost(self, module: LanguageModel) -> Cost:
        """Measure the loss of the module with its present weights."""
        divergence, nats = 0.0, 0.0
        for i, (was, now) in enumerate(zip(self.before, self._log_probabilities(module), strict=True)):
            divergence += float((was.exp() * (was - now)).sum(dtype=torch.float64))
            targets = self.ids_NT[i * self.rows : (i + 1) * self.rows, 1:].to(now.device)
            nats -= float(now[:, :-1].gather(-1, targets[..., None]).sum(dtype=torch.float64))
        bpb = nats / math.log(2) / self.bytes if self.bytes else None
        return Cost(divergence / self.ids_NT.numel(), bpb)


def hessian_error(weight_OI: Tensor, error_OI: Tensor, hessian_II: Tensor | None) -> float:
    """Return ``tr(E H E^T) / tr(W H W^T)``, the relative squared error of the layer's output; None stands for H = 1."""
    weight_OI, error_OI = weight_OI.float(), error_OI.float()

    def energy(x_OI: Tensor) -> float:
        return float(((x_OI if hessian_II is None else x_OI @ hessian_II) * x_OI).sum(dtype=torch.float64))

    whole = energy(weight_OI)
    return energy(error_OI) / whole if whole > 0 else 0.0


def decibel(ratio: float) -> float | None:
    """Return ``10 log10`` of a ratio, or None for 0."""
    return 10 * math.log10(ratio) if ratio > 0 else None
