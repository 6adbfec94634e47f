"""Small layers with known inputs, and a model whose layer runs several times in a pass."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from golfcore.model import Role
from golfcore.model.interface import Batch, Context, LanguageModel


def layer(rows: int, columns: int, tokens: int = 2000, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A weight [rows, columns] and the Hessian of inputs that are correlated and differ in size."""
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(columns, columns, generator=g) / columns**0.5 + torch.eye(columns)
    x_NI = torch.randn(tokens, columns, generator=g) @ mix * torch.exp(0.7 * torch.randn(columns, generator=g))
    return torch.randn(rows, columns, generator=g) * 0.05, x_NI.t() @ x_NI


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopedConfig:
    width: int = 16
    loops: int = 3


class Looped(LanguageModel):
    """One linear layer, run ``loops`` times on its own output; two layers read the same input; a tied embedding."""

    def __init__(self, config: LoopedConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(vocab_size, config.width)
        self.core = nn.Linear(config.width, config.width, bias=False)
        self.a = nn.Linear(config.width, config.width, bias=False)
        self.b = nn.Linear(config.width, config.width, bias=False)
        self.readout = nn.Identity()

    def hidden(self, symbols_BT: Tensor) -> Tensor:
        x = self.embed(symbols_BT)
        for _ in range(self.config.loops):
            x = x + torch.tanh(self.core(x))
        return x + torch.tanh(self.a(x)) * self.b(x)

    def loss(self, batch: Batch, context: Context) -> tuple[Tensor, dict[str, Tensor]]:
        logits = self.readout(self.hidden(batch.inputs_BT)) @ self.embed.weight.t()
        ce = nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets_BT.flatten())
        return ce, {"ce": ce.detach()}

    def new_state(self, rows: int) -> dict[str, Tensor]:
        return {}

    def logits(self, state: dict[str, Tensor], symbols_BT: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return self.readout(self.hidden(symbols_BT)) @ self.embed.weight.t(), state

    def taps(self) -> dict[str, nn.Module]:
        return super().taps() | {"embed.weight": self.readout}

    def parameter_roles(self) -> dict[str, Role]:
        names = [name for name, _ in self.named_parameters()]
        return {n: Role("embedding", "embed") if n == "embed.weight" else Role("matrix", "core") for n in names}


def looped(seed: int = 0, vocab_size: int = 40) -> Looped:
    torch.manual_seed(seed)
    return Looped(LoopedConfig(), vocab_size)
