"""Muon: momentum, then the nearest semi-orthogonal matrix as the update.

Source: K. Jordan, kellerjordan.github.io/posts/muon.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

QUINTIC = (3.4445, -4.7750, 2.0315)  # chosen by Jordan for the steepest slope at zero


def orthogonalise(g_BRC: Tensor, steps: int) -> Tensor:
    """Newton-Schulz iteration in bf16: singular values of each matrix pushed to about 1.

    Args:
        g_BRC: a bank of same-shape matrices [B, rows, columns], any float dtype.
        steps: iterations; 5 is usual.

    Returns:
        bf16 [B, rows, columns].
    """
    a, b, c = QUINTIC
    wide = g_BRC.size(-2) <= g_BRC.size(-1)
    x = (g_BRC if wide else g_BRC.mT).bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x if wide else x.mT


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised, scaled by ``sqrt(max(1, rows / columns))``; decoupled weight decay.

    Same-shape parameters are orthogonalised as one bank. Every rank holds the whole state: gradients must be reduced
    before ``step``. ``momentum`` and ``lr`` are read from the parameter group at each step; schedules set them there.
    """

    def __init__(
        self, params: Iterable[Tensor], *, lr: float, momentum: float, backend_steps: int, weight_decay: float
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "backend_steps": backend_steps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient. ``closure`` is not used."""
        for group in self.param_groups:
            banks: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    banks[parameter.shape].append(parameter)
            for parameters in banks.values():
                self._step_bank(parameters, group)

    def _step_bank(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        gradients = [p.grad for p in parameters if p.grad is not None]
        buffers = [self._buffer(p) for p in parameters]
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, gradients)
        updates = torch._foreach_add(gradients, buffers, alpha=group["momentum"])
        bank_BRC = orthogonalise(torch.stack(updates), group["backend_steps"])
        rows, columns = bank_BRC.shape[-2:]
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(
            parameters, list(bank_BRC.to(parameters[0].dtype)), alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5
        )

    def _buffer(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer: Tensor = state["momentum_buffer"]
        return buffer
