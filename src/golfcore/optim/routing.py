"""Which optimiser moves which parameter: Muon the matrices, Adam the rest, each kind at its own rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from golfcore.config import OptimConfig
from golfcore.errors import InputError
from golfcore.model import Role
from golfcore.optim.muon import Muon
from golfcore.optim.schedule import muon_momentum


def check_roles(module: nn.Module, roles: Mapping[str, Role]) -> None:
    """Raises InputError unless ``roles`` names every parameter of ``module`` once and nothing else."""
    names = {name for name, _ in module.named_parameters()}
    if missing := sorted(names - roles.keys()):
        raise InputError(f"parameter {missing[0]!r} has no role: list it in parameter_roles() or it would not train")
    if unknown := sorted(roles.keys() - names):
        raise InputError(f"parameter_roles() names {unknown[0]!r}, which is not a parameter of the model")


class Optimizers:
    """Every optimiser of a model as one: ``step(lr_multiplier, step)``, ``zero_grad``, ``state_dict``."""

    def __init__(self, module: nn.Module, roles: Mapping[str, Role], config: OptimConfig, *, tied: bool) -> None:
        check_roles(module, roles)
        self.config = config
        by_kind: dict[str, list[nn.Parameter]] = {}
        for name, parameter in module.named_parameters():
            by_kind.setdefault(roles[name].kind, []).append(parameter)
        rates = {
            "embedding": config.tied_embed_lr if tied else config.embed_lr,
            "head": config.head_lr,
            "vector": config.scalar_lr,
        }
        adam_groups = [{"params": by_kind[kind], "base_lr": lr} for kind, lr in rates.items() if kind in by_kind]
        self.parts: dict[str, torch.optim.Optimizer] = {}
        if adam_groups:
            self.parts["adam"] = torch.optim.Adam(
                adam_groups, lr=0.0, betas=(config.beta1, config.beta2), eps=config.adam_eps, fused=True
            )
        if "matrix" in by_kind:
            self.parts["muon"] = Muon(
                by_kind["matrix"], lr=0.0, momentum=config.muon_momentum, backend_steps=config.muon_backend_steps,
                weight_decay=config.muon_weight_decay,
            )  # fmt: skip
            self.parts["muon"].param_groups[0]["base_lr"] = config.matrix_lr

    def step(self, lr_multiplier: float, step: int) -> None:
        """Moves every parameter; gradients must already be reduced over the ranks and clipped."""
        for name, part in self.parts.items():
            for group in part.param_groups:
                group["lr"] = group["base_lr"] * lr_multiplier
                if name == "muon":
                    group["momentum"] = muon_momentum(step, self.config)
            part.step()

    def zero_grad(self) -> None:
        for part in self.parts.values():
            part.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
