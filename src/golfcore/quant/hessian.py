"""Collect the Hessians of layers: H = sum x x^T of a layer's inputs x over calibration tokens.

The model's ``taps()`` say which parameters have an H. Layers that read the same input share one (q, k and v); a layer
that runs several times in a pass adds each time. Shapes: N rows of T tokens, I input width.

Training text is read on the training clock, which ends a run's score if it runs over. So ``rehearse`` measures off the
clock what a pass takes, and ``collect_hessians`` begins no pass that the slowest rank might end late.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from golfcore.errors import InputError
from golfcore.model.interface import LanguageModel
from golfcore.ops import products
from golfcore.progress import Tick, silent

LONGER = 1.5  # a pass, or the sum over the ranks, may take that many times as long as the longest so far
SAMPLE = 16  # tokens of the pass that finds out which layers share their input


@dataclass(frozen=True)
class Hessians:
    """Sums of outer products, on the CPU.

    Attributes:
        matrix: fp32 [I, I] by key; the key is the name of the first parameter that uses the matrix.
        key: the key of each parameter that has a Hessian.
        tokens: number of tokens that went through the model; with 0 no parameter has a Hessian.
    """

    matrix: dict[str, Tensor]
    key: dict[str, str]
    tokens: int

    def of(self, name: str) -> Tensor | None:
        """Return the matrix of a parameter, or None if it has no Hessian."""
        return self.matrix[self.key[name]] if name in self.key else None


class Rows(Protocol):
    """Rows of tokens, int64 [N, T], that may be read only when a slice is taken; a tensor is such rows."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, where: slice) -> Tensor: ...


class Ranks(Protocol):
    """The processes that share the rows; ``golfcore.ranks.world.World`` is such."""

    def sum(self, value: Tensor) -> Tensor: ...

    def largest(self, *values: float) -> tuple[float, ...]: ...

    def synchronize(self) -> None: ...


class _Alone:
    def sum(self, value: Tensor) -> Tensor:
        return value

    def largest(self, *values: float) -> tuple[float, ...]:
        return values

    def synchronize(self) -> None:
        pass


@dataclass(frozen=True)
class Times:
    """Seconds that collecting takes: of one pass, and of the sum over the ranks and its way to the CPU at the end."""

    pass_s: float = 0.0
    closing_s: float = 0.0

    @property
    def least_s(self) -> float:
        """Return the seconds without which no pass is begun."""
        return LONGER * (self.pass_s + self.closing_s)


@torch.no_grad()
def collect_hessians(
    module: LanguageModel, rows: Rows, *, batch_tokens: int = 8192, ranks: Ranks | None = None,
    left: Callable[[], float] = lambda: math.inf, times: Times | None = None, tick: Tick = silent,
) -> Hessians:  # fmt: skip
    """Run ``module`` over ``rows`` and sum the outer products of its layers' inputs; every rank calls it.

    Args:
        module: the model; it is left unchanged, in evaluation mode.
        rows: this rank's rows; they are read as passes need them.
        batch_tokens: tokens per forward pass.
        ranks: the processes that share the rows; None for this one alone.
        left: returns the seconds that are left; no pass is begun, not even the first, after which they might be over.
        times: what a pass and the end take, from ``rehearse``.
        tick: called with the number of tokens so far.

    Raises:
        InputError: no tokens, or activations that are NaN or infinite; the message names the tensor.
    """
    ranks, times = ranks or _Alone(), times or Times()
    count, length = rows.shape
    if not ranks.largest(count * length)[0]:
        raise InputError("the calibration text has no tokens: give text, or set quant.calibration_tokens above 0")
    module.eval()
    sums, step, longest_s, begin = _Sums(module), max(1, batch_tokens // length), times.pass_s, 0
    while True:
        # The largest of -left is the least that any rank has left. A rank that is done waits for the others.
        needed_s, minus_left_s, unread = ranks.largest(
            LONGER * (longest_s + times.closing_s), -left(), float(begin < count)
        )
        if not unread or needed_s > -minus_left_s:
            break
        if begin < count:
            started = time.monotonic()
            sums.add(rows[begin : begin + step])
            ranks.synchronize()
            longest_s = max(longest_s, time.monotonic() - started)
            tick(sums.tokens, count * length, "Hessians")
        begin += step
    return sums.total(ranks)


@torch.no_grad()
def rehearse(module: LanguageModel, length: int, *, batch_tokens: int = 8192, ranks: Ranks | None = None) -> Times:
    """Time one pass of ``collect_hessians`` over rows of ``length`` tokens, and its end, on the slowest rank.

    The tokens are of no text. Every rank calls it; the module is left unchanged.
    """
    ranks, trains = ranks or _Alone(), module.training
    module.eval()
    rows_NT = torch.zeros(max(1, batch_tokens // length), length, dtype=torch.int64)
    for _ in range(2):  # the first pass allocates and loads kernels
        ranks.synchronize()
        started = time.monotonic()
        sums = _Sums(module)
        sums.add(rows_NT)
        ranks.synchronize()
        middle = time.monotonic()
        sums.total(ranks)
        ended = time.monotonic()
    module.train(trains)
    return Times(*ranks.largest(middle - started, ended - middle))


class _Sums:
    """The sums of one rank so far, on its device."""

    def __init__(self, module: LanguageModel) -> None:
        self.module, self.device, self.tokens = module, next(module.parameters()).device, 0
        self.key, widths = _shared_inputs(module, torch.zeros(1, SAMPLE, dtype=torch.int64, device=self.device))
        self.matrix = {name: torch.zeros(width, width, device=self.device) for name, width in widths.items()}

    def add(self, ids_NT: Tensor) -> None:
        with _tapped(self.module.taps(), self._add_input):
            self.module.run_taps(ids_NT.to(self.device))
        self.tokens += ids_NT.numel()

    def _add_input(self, name: str, x: Tensor) -> None:
        if self.key.get(name) != name:
            return
        x_NI = x.detach().flatten(0, -2)
        if products.leaves_fp32(x_NI):
            products.add_fp32_(self.matrix[name], x_NI.t(), x_NI)
        else:
            wide_NI = x_NI.float()
            self.matrix[name].addmm_(wide_NI.t(), wide_NI)

    def total(self, ranks: Ranks) -> Hessians:
        """Return the sum over the ranks.

        Raises:
            InputError: a sum is NaN or infinite; the message names the tensor.
        """
        tokens = int(ranks.sum(torch.tensor(float(self.tokens), dtype=torch.float64, device=self.device)))
        if not tokens:
            return Hessians({}, {}, 0)
        for total in self.matrix.values():
            ranks.sum(total)
        finite = [torch.isfinite(total).all() for total in self.matrix.values()]  # all, before the first is waited for
        for name, good in zip(self.matrix, finite, strict=True):
            if not good:
                raise InputError(
                    f"{name}: its inputs are NaN or infinite on the calibration text; the training run diverged"
                )
        return Hessians({name: total.cpu() for name, total in self.matrix.items()}, self.key, tokens)


def _shared_inputs(module: LanguageModel, ids_1T: Tensor) -> tuple[dict[str, str], dict[str, int]]:
    """Return for each parameter the first one whose layer gets the very same input tensors, and the width of those."""
    seen: dict[str, list[Tensor]] = {}
    with _tapped(module.taps(), lambda name, x: seen.setdefault(name, []).append(x)):
        module.run_taps(ids_1T)
    first: dict[tuple[int, ...], str] = {}  # the tensors are kept alive by `seen`, so ids are theirs alone
    key = {name: first.setdefault(tuple(map(id, inputs)), name) for name, inputs in seen.items()}
    return key, {name: seen[name][0].size(-1) for name in dict.fromkeys(key.values())}


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
