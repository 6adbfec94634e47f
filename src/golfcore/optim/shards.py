"""Share gradients over ranks: each matrix has an owner, and reductions run while the backward pass goes on.

A bank is a set of matrices of one shape that are orthogonalized together. Its matrices are dealt out to the ranks in
the order in which backward finishes them, in rounds: as soon as the gradients of a round are there, they are reduced
and each rank gets the sum of its own. Everything else, small as it is, shares one flat buffer that is summed on every
rank. Rounds are begun in one fixed order on all ranks, whatever order backward takes.

The layout (parameter banks, reduce-scatter, update of the own share, all-gather) is that of the contest's sharded Muon
(`records/track_10min_16mb`, 2026-03-22 onwards) and of Dion (arXiv:2504.05295).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from golfcore.ops.optim import update_dtype

ROUND_BYTES = 1 << 20  # small matrices share a round: each collective costs a fixed time

Pending = Callable[[], None]
"""Called to wait for a collective that was begun."""


class Ranks(Protocol):
    """The collectives that sharding needs; ``golfcore.ranks.world.World`` offers them."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    def all_reduce(self, buffer: Tensor) -> Pending: ...

    def reduce_scatter(self, own: Tensor, pieces: Tensor) -> Pending: ...

    def all_gather(self, all_: Tensor, own: Tensor) -> Pending: ...


class Bank:
    """A set of matrices of one shape that are dealt out to the ranks.

    Attributes:
        owned: for each rank, the names of its matrices, in the order in which it holds them.
        rows: matrices that a rank holds at most; collectives carry this many, padded with zeros.
        gradients: this rank's reduced gradients [rows, R, C], once ``Shards.await_bank`` is done.
        updates: this rank's updates, to be gathered, [rows, R, C] in the dtype of ``muon_update``.
    """

    def __init__(self, names: Sequence[str], like: Tensor, ranks: Ranks) -> None:
        """Deal out ``names``, given in the order in which the backward pass finishes them."""
        self.owned: list[list[str]] = [[] for _ in range(ranks.size)]
        shares = rows_by_round(len(names), like.numel() * like.element_size(), ranks.size)
        self.rounds: list[Round] = []
        self.rows = 0
        self.gradients = like.new_zeros((sum(shares), *like.shape), requires_grad=False)
        self.updates = torch.zeros_like(self.gradients, dtype=update_dtype(like))
        for each in shares:
            cut = self.rows * ranks.size
            members = names[cut : cut + each * ranks.size]
            dealt = [list(members[r * each : (r + 1) * each]) for r in range(ranks.size)]
            for mine, new in zip(self.owned, dealt, strict=True):
                mine += new
            self.rounds.append(Round(dealt, self.gradients[self.rows : self.rows + each]))
            self.rows += each


def rows_by_round(matrices: int, matrix_bytes: int, ranks: int) -> list[int]:
    """Return, for each round of a bank of ``matrices``, the matrices of ``matrix_bytes`` that a rank gets at most."""
    share = max(1, ROUND_BYTES // (ranks * matrix_bytes))
    return [min(share, -(-(matrices - cut) // ranks)) for cut in range(0, matrices, share * ranks)]


class Round:
    """A round: matrices whose gradients are reduced together."""

    def __init__(self, dealt: list[list[str]], own: Tensor) -> None:
        """Make a round of ``dealt``, names for each rank, at most ``len(own)`` each; ``own`` gets this rank's sums."""
        self.own = own
        self.pieces = own.new_zeros((len(dealt), *own.shape))  # stays zero where a rank has fewer than others
        self.slots = {name: self.pieces[r, i] for r, names in enumerate(dealt) for i, name in enumerate(names)}
        self.missing = set(self.slots)
        self.wait: Pending | None = None


class Shards:
    """The reduction of all gradients of a model over the ranks; the head of this file explains it.

    Args:
        parameters: parameters by name, in the module's order; the backward pass finishes them about in reverse.
        banks: the names of each bank.
        ranks: at least two.
    """

    def __init__(self, parameters: Mapping[str, Tensor], banks: Sequence[Sequence[str]], ranks: Ranks) -> None:
        self.parameters, self.ranks = parameters, ranks
        order = {name: i for i, name in enumerate(reversed(list(parameters)))}
        self.banks = [Bank(sorted(names, key=order.__getitem__), parameters[names[0]], ranks) for names in banks]
        rounds = [r for bank in self.banks for r in bank.rounds]
        self._rounds = sorted(rounds, key=lambda r: max(order[name] for name in r.slots))
        self._round_of = {name: r for r in self._rounds for name in r.slots}
        rest = [name for name in parameters if name not in self._round_of]
        first = next(iter(parameters.values()))
        # The last element carries the loss.
        self._flat = first.new_zeros(sum(parameters[name].numel() for name in rest) + 1, requires_grad=False)
        pieces = torch.split(self._flat[:-1], [parameters[name].numel() for name in rest])
        self._rest = {name: piece.view_as(parameters[name]) for name, piece in zip(rest, pieces, strict=True)}
        self._flat_wait: Pending | None = None
        self._armed, self._begun = False, 0
        for name in self._round_of:
            parameter: Any = parameters[name]  # torch leaves the method untyped
            parameter.register_post_accumulate_grad_hook(partial(self._on_gradient, name))

    # --- during backward ----------------------------------------------------------------------------------------------

    def begin_overlapped_reduction(self) -> None:
        """Reduce gradients as they come from now on: the next backward pass is the last of the step."""
        self._armed, self._begun = True, 0
        for r in self._rounds:
            r.missing = set(r.slots)

    def _on_gradient(self, name: str, parameter: Tensor) -> None:
        if self._armed:
            self._take(name)
            self._begin_rounds()

    def _take(self, name: str) -> None:
        """Move a gradient into its slot; ``grad`` then is the slot."""
        r, parameter = self._round_of[name], self.parameters[name]
        _fill(r.slots[name], parameter)
        r.missing.discard(name)

    def _begin_rounds(self) -> None:
        while self._begun < len(self._rounds) and not self._rounds[self._begun].missing:
            r = self._rounds[self._begun]
            r.wait = self.ranks.reduce_scatter(r.own, r.pieces)
            self._begun += 1

    # --- after backward -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def finish(self, loss: Tensor) -> Tensor:
        """Begin the reductions that are left; return the mean of ``loss`` over the ranks.

        Every gradient outside the banks then is the sum over the ranks. A parameter that took no part counts as zero.
        """
        self._armed = False
        for r in self._rounds[self._begun :]:
            for name in sorted(r.missing):
                self._take(name)
        self._begin_rounds()
        for name, slot in self._rest.items():
            _fill(slot, self.parameters[name])
        self._flat[-1] = loss / self.ranks.size
        self.ranks.all_reduce(self._flat)()
        return self._flat[-1]

    def await_bank(self, bank: Bank) -> list[Tensor]:
        """Wait for the summed gradients of the matrices that this rank owns, and return them."""
        for r in bank.rounds:
            if r.wait is not None:
                r.wait()
                r.wait = None
        return list(bank.gradients.unbind())[: len(bank.owned[self.ranks.rank])]

    def gather(self, own: Tensor) -> tuple[Tensor, Pending]:
        """Begin to gather ``own`` [rows, R, C] of each rank into [ranks, rows, R, C]."""
        everyones = own.new_empty((self.ranks.size, *own.shape))
        return everyones, self.ranks.all_gather(everyones, own)

    def elsewhere(self) -> frozenset[str]:
        """Return the names of the matrices that other ranks own."""
        return frozenset(
            name for bank in self.banks for rank, names in enumerate(bank.owned) if rank != self.ranks.rank
            for name in names
        )  # fmt: skip

    @torch.no_grad()
    def norm(self) -> Tensor:
        """Return the norm of all summed gradients together."""
        own = [g for bank in self.banks for g in self.await_bank(bank)]
        squares = self._flat.new_zeros(1)
        for gradient in own:
            squares += gradient.square().sum()
        self.ranks.all_reduce(squares)()
        return (squares + self._flat[:-1].square().sum()).sqrt()[0]

    @torch.no_grad()
    def scale(self, factor: Tensor) -> None:
        """Multiply every summed gradient that this rank holds by ``factor``."""
        self._flat[:-1] *= factor
        for bank in self.banks:
            bank.gradients *= factor


@torch.no_grad()
def _fill(slot: Tensor, parameter: Tensor) -> None:
    if parameter.grad is None:
        slot.zero_()
    else:
        slot.copy_(parameter.grad)
    parameter.grad = slot
