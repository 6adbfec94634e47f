"""The interface between a model and everything that trains, packs or scores it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from golfcore.model.roles import Role


class Batch(NamedTuple):
    """One forward pass: ``targets_BT[b, t]`` is the token after ``inputs_BT[b, t]``; both int64."""

    inputs_BT: Tensor
    targets_BT: Tensor


class Context(NamedTuple):
    """Where training stands. A 0-d tensor, not a number: a Python branch on it would be frozen by torch.compile."""

    progress: Tensor  # share of the clock that is spent, 0 to 1


class LanguageModel(nn.Module, ABC):
    """What every family's module offers besides being a torch module.

    Attributes:
        activation_dtype: what the forward pass computes in; logits and losses are fp32 whatever it is.
        phase: how many of ``phase_starts`` have come: 0 for the first graph, and from the start, and in a loaded model,
            the last. The trainer sets it; a compiled forward is traced once for each value, in the warm-up.
    """

    activation_dtype: torch.dtype = torch.float32
    phase: int = 0

    def phase_starts(self) -> tuple[float, ...]:
        """Rising shares of the run from which further parts take part; none for one graph all along."""
        return ()

    @abstractmethod
    def loss(self, batch: Batch, context: Context) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar to descend, and logged parts: ``ce`` is the cross-entropy in nats per token, no auxiliaries."""

    @abstractmethod
    def new_state(self, rows: int) -> dict[str, Tensor]:
        """The state before anything was read, for ``rows`` independent streams: named tensors, copyable."""

    @abstractmethod
    def logits(self, state: dict[str, Tensor], symbols_BT: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """fp32 logits [B, T, V] and the next state. Row t speaks of the token after ``symbols_BT[:, t]``.

        Feeding the symbols in one piece or in many gives the same rows.
        """

    def last_logits(self, symbols_BT: Tensor, last: int) -> Tensor:
        """Return the fp32 logits [B, last, V] of the last positions of whole windows, the same rows as ``logits``.

        The scorer and the future-flip probe read a model through this method alone. The default computes every
        position and slices; override it if your model can skip work that only the earlier positions need.
        """
        logits_BTV, _ = self.logits(self.new_state(symbols_BT.size(0)), symbols_BT)
        return logits_BTV[:, -last:]

    def forward(self, batch: Batch, context: Context) -> tuple[Tensor, dict[str, Tensor]]:
        """``loss``, as what ``torch.func.functional_call`` calls: so other weights can stand in by name."""
        return self.loss(batch, context)

    def taps(self) -> dict[str, nn.Module]:
        """By matrix parameter: the module whose first input it multiplies, ``y = x W^T``, each time that is called.

        The quantizer hooks these modules to learn what a weight's inputs look like. A layer that runs several times in
        a pass is counted at each; a parameter that is not listed is quantized without such knowledge. The default lists
        the ``weight`` of every module that is not an embedding.
        """
        found = {
            f"{name}.weight": module for name, module in self.named_modules() if not isinstance(module, nn.Embedding)
        }
        return {
            name: m for name, m in found.items() if isinstance(w := getattr(m, "weight", None), Tensor) and w.ndim == 2
        }

    @abstractmethod
    def parameter_roles(self) -> dict[str, Role]:
        """The role of every parameter, each named once as in ``named_parameters()``."""
