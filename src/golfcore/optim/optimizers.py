"""Which optimiser moves which parameter: Muon the matrices, AdamW the rest, each kind at its own rate.

The steps themselves are ``golfcore.ops.optim``: one pass over each parameter, its state and its average. State is kept
on every rank; gradients must be reduced before ``step``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from golfcore.config import OptimConfig
from golfcore.errors import InputError
from golfcore.model import Role
from golfcore.ops import POLAR_EXPRESS, QUINTIC, adamw_, muon_
from golfcore.optim.routing import Route, route
from golfcore.optim.schedule import muon_momentum


def check_roles(module: nn.Module, roles: Mapping[str, Role]) -> None:
    """Raises InputError unless ``roles`` names every parameter of ``module`` once and nothing else."""
    names = {name for name, _ in module.named_parameters()}
    if missing := sorted(names - roles.keys()):
        raise InputError(f"parameter {missing[0]!r} has no role: list it in parameter_roles() or it would not train")
    if unknown := sorted(roles.keys() - names):
        raise InputError(f"parameter_roles() names {unknown[0]!r}, which is not a parameter of the model")


class Optimizers:
    """Every optimiser of a model as one.

    Attributes:
        parameters: by name, in the module's order.
        averages: the exponential average of each parameter, fp32; empty without one.
    """

    def __init__(
        self, module: nn.Module, roles: Mapping[str, Role], config: OptimConfig, *, tied: bool, averaged: bool = False
    ) -> None:
        """
        Args:
            module: the model, in fp32.
            roles: the role of each of its parameters.
            config: rates and momenta.
            tied: whether the embedding is the head too; it then has a rate of its own.
            averaged: keep an average of the weights.

        Raises:
            InputError: a parameter without a role.
        """
        check_roles(module, roles)
        self.config = config
        self.parameters = dict(module.named_parameters())
        self.averages = {n: p.detach().clone() for n, p in self.parameters.items()} if averaged else {}
        self.routes = {n: route(roles[n], config, tied=tied) for n in self.parameters}
        self._adam = [n for n in self.parameters if self.routes[n].optimizer == "adamw"]
        # Matrices of one shape and route are orthogonalised together.
        self._banks: dict[tuple[torch.Size, Route], list[str]] = {}
        for name, parameter in self.parameters.items():
            if self.routes[name].optimizer == "muon":
                self._banks.setdefault((parameter.shape, self.routes[name]), []).append(name)
        polar = config.muon_coefficients == "polar"
        self._coefficients = (POLAR_EXPRESS if polar else [QUINTIC[0]] * 64)[: config.muon_backend_steps]
        self._state = {f"m.{n}": torch.zeros_like(p, requires_grad=False) for n, p in self.parameters.items()}
        self._state |= {f"v.{n}": torch.zeros_like(self.parameters[n], requires_grad=False) for n in self._adam}

    @torch.no_grad()
    def step(
        self, lr_multiplier: float, step: int, average_decay: float = 1.0, weight_decay_multiplier: float = 1.0
    ) -> None:
        """Moves every parameter; gradients must already be reduced over the ranks and clipped.

        Args:
            lr_multiplier: the schedule's factor on every rate.
            step: steps done before this one.
            average_decay: how much of the old average stays; 1 leaves it alone.
            weight_decay_multiplier: the schedule's factor on every weight decay.
        """
        config = self.config
        if names := self._adam:
            routes = [self.routes[n] for n in names]
            adamw_(
                *self._columns(names, "m.", "v."), lr=[r.lr * lr_multiplier for r in routes],
                weight_decay=[r.weight_decay * weight_decay_multiplier for r in routes],
                betas=(config.beta1, config.beta2), eps=config.adam_eps, step=step + 1,
                emas=self._averages_of(names, average_decay), ema_decay=average_decay,
            )  # fmt: skip
        for (_, path), bank in self._banks.items():
            muon_(
                *self._columns(bank, "m."), lr=path.lr * lr_multiplier, momentum=muon_momentum(step, config),
                weight_decay=path.weight_decay * weight_decay_multiplier, coefficients=self._coefficients,
                row_norm=config.muon_row_norm,
                emas=self._averages_of(bank, average_decay), ema_decay=average_decay,
            )  # fmt: skip

    def _columns(self, names: list[str], *prefixes: str) -> list[list[Tensor]]:
        """Parameters, gradients (zeros where a parameter took no part) and states."""
        parameters: list[Tensor] = [self.parameters[n] for n in names]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        return [parameters, gradients, *([self._state[prefix + n] for n in names] for prefix in prefixes)]

    def _averages_of(self, names: list[str], decay: float) -> list[Tensor]:
        return [self.averages[n] for n in names] if self.averages and decay < 1 else []

    def zero_grad(self) -> None:
        for parameter in self.parameters.values():
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """The moments and the averages, by name."""
        return {"state": self._state, "averages": self.averages}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Copies the tensors of ``state_dict`` back.

        Raises:
            InputError: it is of another model, or of one with another kind of average.
        """
        for own, other in ((self._state, saved["state"]), (self.averages, saved["averages"])):
            if own.keys() != other.keys():
                odd = sorted(own.keys() ^ other.keys())[0]
                raise InputError(f"the saved optimiser state does not fit the model: {odd!r} is in one of them only")
            for name, tensor in own.items():
                tensor.copy_(other[name])
