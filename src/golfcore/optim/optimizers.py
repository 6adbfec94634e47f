"""Update parameters: matrices by Muon, all others by AdamW, each kind at its own learning rate.

The updates are in ``golfcore.ops.optim``: one pass over each parameter, its state and its average. With several ranks
each rank orthogonalizes its own matrices and keeps their momenta; the updates are gathered, so that weights and
averages are the same on all ranks (``golfcore.optim.shards``). AdamW's parameters are small, and every rank updates
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from golfcore.config import OptimConfig
from golfcore.errors import InputError
from golfcore.model import Role
from golfcore.ops import POLAR_EXPRESS, QUINTIC, adamw_, muon_, muon_apply_, muon_update
from golfcore.optim.routing import Route, route
from golfcore.optim.schedule import muon_momentum
from golfcore.optim.shards import Bank, Pending, Ranks, Shards


def check_roles(module: nn.Module, roles: Mapping[str, Role]) -> None:
    """Raise InputError unless ``roles`` names every parameter of ``module`` once and nothing else."""
    names = {name for name, _ in module.named_parameters()}
    if missing := sorted(names - roles.keys()):
        raise InputError(f"parameter {missing[0]!r} has no role: list it in parameter_roles() or it would not train")
    if unknown := sorted(roles.keys() - names):
        raise InputError(f"parameter_roles() names {unknown[0]!r}, which is not a parameter of the model")


class _Turn(NamedTuple):
    """Factors with which a bank of matrices is updated in a step."""

    lr: float
    weight_decay: float
    ema_decay: float


class Optimizers:
    """The optimizers of a model, behind one interface.

    Attributes:
        parameters: parameters by name, in the module's order.
        averages: exponential average of each parameter, fp32; empty if none is kept.
    """

    def __init__(
        self, module: nn.Module, roles: Mapping[str, Role], config: OptimConfig, *, tied: bool, averaged: bool = False,
        ranks: Ranks | None = None,
    ) -> None:  # fmt: skip
        """Make the optimizers of a model.

        Args:
            module: the model, in fp32.
            roles: the role of each of its parameters.
            config: rates and momenta.
            tied: whether the embedding is also the head; it then has its own rate.
            averaged: whether to keep an average of the weights.
            ranks: the ranks that share the work; None for one process.

        Raises:
            InputError: a parameter without a role.
        """
        check_roles(module, roles)
        self.config = config
        self.parameters = dict(module.named_parameters())
        self.averages = {n: p.detach().clone() for n, p in self.parameters.items()} if averaged else {}
        self.routes = {n: route(roles[n], config, tied=tied) for n in self.parameters}
        self._adam = [n for n in self.parameters if self.routes[n].optimizer == "adamw"]
        # Matrices of one shape and route are orthogonalized together.
        self._banks: dict[tuple[torch.Size, Route], list[str]] = {}
        for name, parameter in self.parameters.items():
            if self.routes[name].optimizer == "muon":
                self._banks.setdefault((parameter.shape, self.routes[name]), []).append(name)
        polar = config.muon_coefficients == "polar"
        self._coefficients = (POLAR_EXPRESS if polar else [QUINTIC[0]] * 64)[: config.muon_backend_steps]
        self._shards = Shards(self.parameters, list(self._banks.values()), ranks) if ranks and ranks.size > 1 else None
        elsewhere = self._shards.elsewhere() if self._shards else frozenset()
        kept = [n for n in self.parameters if n not in elsewhere]
        self._state = {f"m.{n}": torch.zeros_like(self.parameters[n], requires_grad=False) for n in kept}
        self._state |= {f"v.{n}": torch.zeros_like(self.parameters[n], requires_grad=False) for n in self._adam}

    # --- gradients ----------------------------------------------------------------------------------------------------

    def begin_overlapped_reduction(self) -> None:
        """Reduce gradients over the ranks as they come; call it before the last backward pass of a step."""
        if self._shards is not None:
            self._shards.begin_overlapped_reduction()

    def reduce(self, loss: Tensor) -> Tensor:
        """Begin the reductions that are left, after the last backward pass; return the mean of ``loss`` over the ranks.

        Gradients are summed over the ranks, so each rank must have scaled its loss by its share of the batch.
        """
        return loss if self._shards is None else self._shards.finish(loss)

    def clip(self, max_norm: float) -> None:
        """Scale all reduced gradients down together if their norm is above ``max_norm``."""
        if self._shards is None:
            torch.nn.utils.clip_grad_norm_(self.parameters.values(), max_norm)
        else:
            self._shards.scale((max_norm / (self._shards.norm() + 1e-6)).clamp(max=1.0))

    # --- the step -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def step(
        self, lr_multiplier: float, step: int, average_decay: float = 1.0, weight_decay_multiplier: float = 1.0
    ) -> None:
        """Update every parameter by its reduced gradient.

        Args:
            lr_multiplier: the schedule's factor on every learning rate.
            step: number of steps done before this one.
            average_decay: share of the old average that stays; 1 leaves the average alone.
            weight_decay_multiplier: the schedule's factor on every weight decay.
        """
        turns = [
            _Turn(path.lr * lr_multiplier, path.weight_decay * weight_decay_multiplier, average_decay)
            for _, path in self._banks
        ]
        if self._shards is not None:
            last = self._step_shares(self._shards, turns, step)
            self._step_adam(lr_multiplier, step, average_decay, weight_decay_multiplier)
            last()
            return
        for names, turn in zip(self._banks.values(), turns, strict=True):
            parameters, gradients, momenta = self._columns(names, "m.")
            muon_(
                parameters, gradients, momenta, lr=turn.lr, weight_decay=turn.weight_decay,
                emas=self._averages_of(names, average_decay), ema_decay=average_decay, **self._orthogonalization(step),
            )  # fmt: skip
        self._step_adam(lr_multiplier, step, average_decay, weight_decay_multiplier)

    def _step_adam(self, lr_multiplier: float, step: int, average_decay: float, decay_multiplier: float) -> None:
        config, names = self.config, self._adam
        routes = [self.routes[n] for n in names]
        adamw_(
            *self._columns(names, "m.", "v."), lr=[r.lr * lr_multiplier for r in routes],
            weight_decay=[r.weight_decay * decay_multiplier for r in routes],
            betas=(config.beta1, config.beta2), eps=config.adam_eps, step=step + 1,
            emas=self._averages_of(names, average_decay), ema_decay=average_decay,
        )  # fmt: skip

    def _orthogonalization(self, step: int) -> dict[str, Any]:
        config = self.config
        return {
            "momentum": muon_momentum(step, config), "coefficients": self._coefficients,
            "row_norm": config.muon_row_norm,
        }  # fmt: skip

    def _step_shares(self, shards: Shards, turns: list[_Turn], step: int) -> Pending:
        """Orthogonalize this rank's matrices, and update all matrices by the gathered results.

        While one bank is gathered, the next is computed; calling the result updates the last one.
        """

        def nothing() -> None:
            return

        move = nothing
        for bank, turn in zip(shards.banks, turns, strict=True):
            gradients, names = shards.await_bank(bank), bank.owned[shards.ranks.rank]
            if names:
                momenta = [self._state[f"m.{n}"] for n in names]
                bank.updates[: len(names)] = muon_update(gradients, momenta, **self._orthogonalization(step))
            everyones, wait = shards.gather(bank.updates)
            move()
            move = partial(self._move, bank, everyones, wait, turn)
        return move

    def _move(self, bank: Bank, everyones: Tensor, wait: Pending, turn: _Turn) -> None:
        wait()
        for names, update_BRC in zip(bank.owned, everyones, strict=True):
            if names:
                muon_apply_(
                    [self.parameters[n] for n in names], update_BRC[: len(names)], lr=turn.lr,
                    weight_decay=turn.weight_decay, emas=self._averages_of(names, turn.ema_decay),
                    ema_decay=turn.ema_decay,
                )  # fmt: skip

    def _columns(self, names: list[str], *prefixes: str) -> list[list[Tensor]]:
        """Return parameters, gradients (zeros for a parameter that took no part) and states."""
        parameters: list[Tensor] = [self.parameters[n] for n in names]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        return [parameters, gradients, *([self._state[prefix + n] for n in names] for prefix in prefixes)]

    def _averages_of(self, names: list[str], decay: float) -> list[Tensor]:
        return [self.averages[n] for n in names] if self.averages and decay < 1 else []

    def zero_grad(self) -> None:
        for parameter in self.parameters.values():
            parameter.grad = None

    # --- state --------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return moments and averages of all ranks, by name; every rank must call it."""
        return {"state": self._state | self._momenta_elsewhere(), "averages": self.averages}

    def _momenta_elsewhere(self) -> dict[str, Tensor]:
        if self._shards is None:
            return {}
        state: dict[str, Tensor] = {}
        for bank in self._shards.banks:
            own = torch.zeros_like(bank.gradients)
            for row, name in zip(own, bank.owned[self._shards.ranks.rank], strict=False):
                row.copy_(self._state[f"m.{name}"])
            everyones, wait = self._shards.gather(own)
            wait()
            for rank, (names, momenta) in enumerate(zip(bank.owned, everyones, strict=True)):
                if rank != self._shards.ranks.rank:
                    state |= {f"m.{n}": momentum for n, momentum in zip(names, momenta, strict=False)}
        return state

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Copy the tensors of a ``state_dict`` back; the number of ranks may have changed.

        Raises:
            InputError: the tensors are those of another model, or of one with another kind of average.
        """
        moments = {f"m.{n}" for n in self.parameters} | {f"v.{n}" for n in self._adam}
        for expected, own, other in (
            (moments, self._state, saved["state"]), (self.averages.keys(), self.averages, saved["averages"]),
        ):  # fmt: skip
            if expected != other.keys():
                odd = sorted(expected ^ other.keys())[0]
                raise InputError(f"the saved optimizer state does not fit the model: {odd!r} is in one of them only")
            for name, tensor in own.items():
                if tensor.shape != other[name].shape:
                    raise InputError(
                        f"the saved optimizer state does not fit the model: {name} is {tuple(other[name].shape)} there "
                        f"and {tuple(tensor.shape)} here"
                    )
                tensor.copy_(other[name])
