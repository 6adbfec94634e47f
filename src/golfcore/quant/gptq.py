"""GPTQ with row and column steps, by rounding or along a trellis (docs/quantisation.md).

Columns are quantised one after the other; what rounding a column loses is made good by those after it, as far as the
inputs are correlated (arXiv:2210.17323). With U the upper Cholesky factor of the inverse Hessian, the output's squared
error is the sum over columns of ``(error_j / U_jj)^2``. Two consequences:

- a uniform step wastes bits on columns with a large U_jj, which matter little; at a given rate the error is least where
  each step is proportional to U_jj. So a column gets a step of its own, on the grid of eight to the octave.
- columns are independent of each other once U is known, so that a trellis can run down each column over all rows.

Shapes: O rows (outputs), I columns (inputs), C columns of a block.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from golfcore.artifact import grid
from golfcore.errors import InputError
from golfcore.ops.columns import LIMIT, quantise_columns
from golfcore.progress import Tick, silent
from golfcore.quant.hessian import Hessians
from golfcore.quant.rtn import Quantised, check_matrix, row_step
from golfcore.quant.threads import in_threads

BLOCK = 128
OCTAVES = 6.0  # a column's step is at most this far from the geometric mean


class Coding(NamedTuple):
    """How a matrix is coded. ``clip`` and ``k`` set a row's step as in ``rtn``; symbols beyond the clip are kept."""

    bits: int = 6
    clip: str = "sigma"
    k: float = 12.85
    trellis: int = 3  # bits of state; 0 rounds
    columns: bool = True  # steps of columns besides those of rows
    rate: float = 0.05  # squared steps that a bit is worth; 0: the nearest symbol or path
    scales: str = "log8"
    clipped: bool = False  # symbols beyond the clip are cut, as the contest's pipeline does


@dataclass(frozen=True)
class Factor:
    """The upper Cholesky factor of a damped inverse Hessian, its columns in the order in which they are quantised."""

    order_I: Tensor
    u_II: Tensor
    dead_I: Tensor  # inputs that were never seen

    @property
    def diagonal_I(self) -> Tensor:
        """U_jj in the matrix's own order of columns."""
        out = torch.empty_like(self.u_II.diagonal())
        out[self.order_I] = self.u_II.diagonal()
        return out


def factorise(hessian_II: Tensor, *, damping: float, name: str) -> Factor:
    """Factor of ``H + damping * mean diagonal``, columns in descending order of their diagonal.

    Raises:
        InputError: H is not positive definite with this damping, naming ``name``.
    """
    diagonal_I = hessian_II.diagonal().float().clone()
    dead_I = diagonal_I <= 0
    mean = float(diagonal_I[~dead_I].mean()) if not bool(dead_I.all()) else 1.0
    diagonal_I[dead_I] = mean
    order_I = torch.argsort(diagonal_I, descending=True, stable=True)
    # With J the reversal: J H J = L L^T gives U = J L^-1 J, one factorisation and one inverse of a triangle.
    reverse_I = order_I.flip(0)
    reversed_II = hessian_II[reverse_I].float()[:, reverse_I]
    reversed_II.diagonal().copy_((diagonal_I + damping * mean)[reverse_I])
    lower_II, failed = torch.linalg.cholesky_ex(reversed_II)
    if int(failed) or not torch.isfinite(lower_II).all():
        raise InputError(
            f"{name}: its Hessian is not positive definite with quant.damping = {damping:g}; use more calibration "
            f"tokens, or a damping of {max(10 * damping, 0.01):g}"
        )
    u_II = triangular_inverse(lower_II).flip(0, 1).contiguous()  # LAPACK leaves columns together
    return Factor(order_I, u_II, dead_I)


def triangular_inverse(lower_II: Tensor) -> Tensor:
    """Inverse of a lower triangle by halves: a third of the arithmetic of solving against the identity."""
    n = len(lower_II)
    if n <= 2 * BLOCK:
        solved_II: Tensor = torch.linalg.solve_triangular(lower_II, torch.eye(n), upper=False)
        return solved_II
    h = n // 2
    out_II = torch.zeros_like(lower_II)
    out_II[:h, :h], out_II[h:, h:] = triangular_inverse(lower_II[:h, :h]), triangular_inverse(lower_II[h:, h:])
    out_II[h:, :h] = -(out_II[h:, h:] @ (lower_II[h:, :h] @ out_II[:h, :h]))
    return out_II


def factorise_all(hessians: Hessians, *, damping: float, workers: int | None = None) -> dict[str, Factor]:
    """The factor of every Hessian, by its key."""
    jobs: dict[str, Callable[[], Factor]] = {
        key: partial(factorise, matrix, damping=damping, name=key) for key, matrix in hessians.matrix.items()
    }
    return in_threads(jobs, {key: float(len(m)) ** 3 for key, m in hessians.matrix.items()}, workers)


def quantise_layers(
    weights: Mapping[str, Tensor], factors: Mapping[str, Factor], key: Mapping[str, str],
    codings: Mapping[str, Coding], *, workers: int | None = None, tick: Tick = silent,
) -> dict[str, Quantised]:  # fmt: skip
    """Quantises matrices; those with the same Hessian and coding together. The same for any number of workers.

    Args:
        weights: [O, I] by name.
        factors: from ``factorise_all``.
        key: a matrix's key in ``factors``; matrices without one are quantised as if inputs were independent.
        codings: by name; their keys say which matrices are done.
        workers: matrices at a time; None for torch's number of threads.
        tick: told about weights.

    Raises:
        InputError: a weight that is NaN or infinite, or a step that does not fit fp16, naming the matrix.
    """
    groups: dict[tuple[str, Coding], list[str]] = {}
    for name, coding in codings.items():
        groups.setdefault((key.get(name, name), coding), []).append(name)
    total, done = sum(weights[name].numel() for name in codings), [0]

    def work(names: Sequence[str], coding: Coding, factor: Factor | None) -> list[Quantised]:
        found = quantise_together([weights[n] for n in names], factor, coding, names)
        done[0] += sum(weights[n].numel() for n in names)
        tick(done[0], total, "quantising")
        return found

    jobs: dict[tuple[str, ...], Callable[[], list[Quantised]]] = {
        tuple(names): partial(work, names, coding, factors.get(at)) for (at, coding), names in groups.items()
    }
    sizes = {names: float(sum(weights[n].numel() * (weights[n].size(-1) + 2048) for n in names)) for names in jobs}
    found = in_threads(jobs, sizes, workers)
    by_name = {n: q for names, results in found.items() for n, q in zip(names, results, strict=True)}
    return {name: by_name[name] for name in codings}


def quantise_together(
    weights: Sequence[Tensor], factor: Factor | None, coding: Coding, names: Sequence[str]
) -> list[Quantised]:
    """Quantises matrices [O_n, I] that read the same input; ``factor`` None: as if inputs were independent."""
    pieces = [check_matrix(w, n) for w, n in zip(weights, names, strict=True)]
    stacked_OI = torch.cat(pieces)
    columns = stacked_OI.size(1)
    step_O = torch.cat([
        row_step(w, bits=coding.bits, clip=coding.clip, k=coding.k, scales=coding.scales, name=n)
        for w, n in zip(pieces, names, strict=True)
    ])  # fmt: skip
    column_I = column_steps(factor, stacked_OI, step_O.float()) if coding.columns and factor is not None else None
    scale_I = torch.ones(columns) if column_I is None else column_I.float()
    order_I = torch.arange(columns) if factor is None else factor.order_I
    if factor is not None:
        stacked_OI = stacked_OI.masked_fill(factor.dead_I, 0.0)
    w_IO = (stacked_OI / scale_I).t().contiguous()[order_I]
    u_II = torch.eye(columns) if factor is None else factor.u_II / scale_I[order_I]
    shrink_I = _shrink(w_IO, step_O.float(), coding.rate)
    offsets = [0]
    for piece in pieces:
        offsets.append(offsets[-1] + piece.size(0))
    limit = 2 ** (coding.bits - 1) - 1 if coding.clipped else LIMIT
    symbols_IO = torch.empty(w_IO.shape, dtype=torch.int8)
    for start in range(0, columns, BLOCK):
        stop = min(start + BLOCK, columns)
        symbols_IO[start:stop], error_CO = quantise_columns(
            w_IO[start:stop], u_II[start:stop, start:stop], step_O.float(), shrink_C=shrink_I[start:stop],
            limit=limit, trellis=coding.trellis, ranges=offsets,
        )  # fmt: skip
        if stop < columns:
            w_IO[stop:].addmm_(u_II[start:stop, stop:].t(), error_CO, alpha=-1)
    symbols_OI = symbols_IO[torch.argsort(order_I)].t().contiguous()
    return [
        Quantised(symbols_OI[a:b].contiguous(), step_O[a:b].clone(), coding.bits, coding.trellis, column_I)
        for a, b in pairwise(offsets)
    ]


def column_steps(factor: Factor, weight_OI: Tensor, step_O: Tensor) -> Tensor:
    """fp16 [I] on the grid, proportional to U_jj, with a geometric mean near 1.

    No step is so fine that the symbols of ``weight_OI`` would leave their range.
    """
    log_I = factor.diagonal_I.double().log2()
    wanted_I = (log_I - log_I.mean()).clamp_(-OCTAVES, OCTAVES).exp2().float()
    inverse_O = torch.where(step_O > 0, 1 / step_O, torch.zeros_like(step_O))
    least_I = (weight_OI * inverse_O[:, None]).abs().amax(0) / (0.8 * LIMIT)  # errors pulled in may add to a weight
    return torch.from_numpy(grid.nearest(torch.maximum(wanted_I, least_I).numpy()))


def _shrink(w_IO: Tensor, step_O: Tensor, rate: float) -> Tensor:
    """Factors on the weights of each column before symbols are chosen.

    Least is ``(x - p)^2 + rate * bits(p)``, all in steps. For a column of Gaussian symbols of variance v, bits(p) is
    ``p^2 log2(e) / 2v`` and a constant, and the sum is a square again: that of ``x / (1 + t) - p`` with
    ``t = rate log2(e) / 2v``.
    """
    inverse_O = torch.where(step_O > 0, 1 / step_O, torch.zeros_like(step_O))
    variance_I = (w_IO * inverse_O).square().mean(1) + 1 / 12  # symbols carry the rounding's own variance
    return 1 / (1 + rate * math.log2(math.e) / (2 * variance_I))
