"""The interface between a model and everything that trains, packs or scores it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from golfcore.data.contracts import Documents
from golfcore.model.roles import Role

if TYPE_CHECKING:
    from golfcore.ops.bitpack import PackedWeight


class Batch(NamedTuple):
    """Inputs and targets, both int64: ``targets_BT[b, t]`` is the token after ``inputs_BT[b, t]``.

    ``bounds``: int32 bounds of the segments that ``LanguageModel.documents`` asks for, over all rows end to end; the
    last one may be repeated. None if there are none, or if the model is to find them itself, which makes a GPU wait.
    """

    inputs_BT: Tensor
    targets_BT: Tensor
    bounds: Tensor | None = None


class Context(NamedTuple):
    """The progress of training, as a 0-d tensor: torch.compile would freeze a Python branch on a number."""

    progress: Tensor  # share of the run that is over, 0 to 1


class LanguageModel(nn.Module, ABC):
    """The torch module of a model family; trainer, quantizer, packer and scorer use these methods.

    Attributes:
        activation_dtype: dtype of the forward pass; logits and losses are fp32 in any case.
        phase: index of the current phase. The trainer raises it from 0 as the run passes each value of
            ``phase_starts()``; a new or loaded model is in its last phase. A compiled forward pass is traced once per
            phase, in the warm-up.
    """

    activation_dtype: torch.dtype = torch.float32
    phase: int = 0

    def phase_starts(self) -> tuple[float, ...]:
        """Return the rising shares of the run at which a new phase (another graph) begins; none for one phase."""
        return ()

    def documents(self) -> Documents | None:
        """Return how rows are cut into segments, whose bounds batches then carry; None if they are not cut."""
        return None

    @abstractmethod
    def loss(self, batch: Batch, context: Context) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the scalar loss, and parts to log: ``ce`` is the cross-entropy alone, in nats per token."""

    @abstractmethod
    def new_state(self, rows: int) -> dict[str, Tensor]:
        """Return the state before anything was read, for ``rows`` independent streams: copyable tensors by name."""

    @abstractmethod
    def logits(self, state: dict[str, Tensor], symbols_BT: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return fp32 logits [B, T, V] and the next state; row t predicts the token after ``symbols_BT[:, t]``.

        Feeding the symbols in one piece or in many gives the same rows. The next state may be made in the memory of
        ``state``: copy the tensors of a state first to go on from it more than once.
        """

    def last_logits(self, symbols_BT: Tensor, last: int) -> Tensor:
        """Return the fp32 logits [B, last, V] of the last positions of whole windows, the same rows as ``logits``.

        The scorer and the future-flip probe read a model through this method alone. The default computes every
        position and slices; override it if your model can skip work that only the earlier positions need.
        """
        logits_BTV, _ = self.logits(self.new_state(symbols_BT.size(0)), symbols_BT)
        return logits_BTV[:, -last:]

    def run_taps(self, symbols_BT: Tensor) -> None:
        """Run a forward pass that calls every module of ``taps()``; the quantizer looks at their inputs alone.

        The default computes the logits. Override it if your model's last tap is called before them.
        """
        self.logits(self.new_state(symbols_BT.size(0)), symbols_BT)

    def forward(self, batch: Batch, context: Context) -> tuple[Tensor, dict[str, Tensor]]:
        """Call ``loss``; as ``forward`` it can be given other weights by name (``torch.func.functional_call``)."""
        return self.loss(batch, context)

    def taps(self) -> dict[str, nn.Module]:
        """Return for each matrix, by name, the module whose first input it multiplies, ``y = x W^T``.

        The quantizer hooks these modules to collect the inputs of each weight. A layer that runs several times in a
        pass counts each time; a parameter that is not listed is quantized as if its inputs were independent. The
        default lists the ``weight`` of every module that is not an embedding. Override it only if your model uses a
        weight without calling its module.
        """
        found = {
            f"{name}.weight": module for name, module in self.named_modules() if not isinstance(module, nn.Embedding)
        }
        return {
            name: m for name, m in found.items() if isinstance(w := getattr(m, "weight", None), Tensor) and w.ndim == 2
        }

    def pack_weights(self, weights: Mapping[str, PackedWeight]) -> None:
        """Multiply by packed matrices in place of parameters, from here on; such a model only generates text.

        The default does nothing. Override it if your model computes products by ``golfcore.ops.linear``.

        Args:
            weights: matrices by the names of the parameters that hold their values.
        """

    @abstractmethod
    def parameter_roles(self) -> dict[str, Role]:
        """Return the role of every parameter, each named once as in ``named_parameters()``."""
