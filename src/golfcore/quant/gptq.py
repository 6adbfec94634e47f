"""Quantize by GPTQ with row and column step sizes, by rounding or along a trellis (docs/guides/quantization.md).

Columns are quantized one after the other; later columns make up for the rounding error of a column as far as the inputs
are correlated (GPTQ, arXiv:2210.17323). With ``H = M M^T``, M an upper triangle, the output's squared error is
the sum over columns of ``((w - w_q) M)_j ^ 2``, so column j is best rounded at ``w_j + sum of d_i M_ij / M_jj`` over
the columns i before it, d being ``w - w_q``. That is GPTQ's own feedback, whose U is M's inverse, without an inverse
(LDLQ, arXiv:2307.13304). Two consequences:

- a uniform step size wastes bits on columns with a small M_jj, which matter little; at a given rate the error is least
if
  each step size is proportional to 1 / M_jj. So each column gets its own, on the grid of eight values per octave.
- columns are independent of each other once M is known, so that a trellis can run down each column over all rows.

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

from golfcore.container import grid
from golfcore.errors import InputError
from golfcore.ops.columns import LIMIT, quantize_columns
from golfcore.progress import Tick, silent
from golfcore.quant.hessian import Hessians
from golfcore.quant.matrix import Quantized, check_matrix, row_step
from golfcore.quant.threads import in_threads

BLOCK = 128
PANEL = 256  # of a Cholesky factorization
OCTAVES = 6.0  # a column's step is at most this far from the geometric mean


class Coding(NamedTuple):
    """Settings for coding a matrix. ``clip`` and ``k`` set a row's step size as in ``rtn``; no symbol is clipped."""

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
    """A damped Hessian as ``M M^T``, M an upper triangle, with columns in the order in which they are quantized."""

    order_I: Tensor
    feedback_II: Tensor  # M_ij / M_jj: of the error of column i, what column j is to make good
    weight_I: Tensor  # M_jj in the matrix's own order: how much an error in the column is worth
    dead_I: Tensor  # inputs that were never seen


def factorize(hessian_II: Tensor, *, damping: float, name: str) -> Factor:
    """Factorize ``H + damping * mean diagonal``, with columns in descending order of their diagonal.

    Raises:
        InputError: H is not positive definite with this damping; the message has ``name``.
    """
    diagonal_I = hessian_II.diagonal().float().clone()
    dead_I = diagonal_I <= 0
    mean = float(diagonal_I[~dead_I].mean()) if not bool(dead_I.all()) else 1.0
    diagonal_I[dead_I] = mean
    order_I = torch.argsort(diagonal_I, descending=True, stable=True)
    # With J the reversal: J H J = L L^T gives M = J L J.
    reverse_I = order_I.flip(0)
    reversed_II = hessian_II.float()[reverse_I].t().contiguous()[reverse_I]  # by rows twice: H is symmetric
    reversed_II.diagonal().copy_((diagonal_I + damping * mean)[reverse_I])
    lower_II = cholesky(reversed_II)
    if lower_II is None:
        raise InputError(
            f"{name}: its Hessian is not positive definite with quant.damping = {damping:g}; use more calibration "
            f"tokens, or a damping of {max(10 * damping, 0.01):g}"
        )
    feedback_II = lower_II.flip(0, 1)
    size_I = feedback_II.diagonal().clone()
    weight_I = torch.empty_like(size_I)
    weight_I[order_I] = size_I
    return Factor(order_I, feedback_II.div_(size_I), weight_I, dead_I)


def cholesky(matrix_II: Tensor) -> Tensor | None:
    """Return the lower Cholesky factor, or None if not positive definite; faster than LAPACK on one thread.

    Reads the lower triangle only.
    """
    lower_II = torch.zeros_like(matrix_II)
    for start in range(0, len(matrix_II), PANEL):
        stop = min(start + PANEL, len(matrix_II))
        done_IP = lower_II[start:, :start]
        panel_IC = torch.addmm(matrix_II[start:, start:stop], done_IP, done_IP[: stop - start].t(), alpha=-1)
        head_CC, failed = torch.linalg.cholesky_ex(panel_IC[: stop - start])
        if int(failed) or not torch.isfinite(head_CC).all():
            return None
        lower_II[start:stop, start:stop] = head_CC
        if stop < len(matrix_II):
            rest_CI = torch.linalg.solve_triangular(head_CC, panel_IC[stop - start :].t(), upper=False)
            lower_II[stop:, start:stop] = rest_CI.t()
    return lower_II


def factorize_all(hessians: Hessians, *, damping: float, workers: int | None = None) -> dict[str, Factor]:
    """Return the factor of every Hessian, by its key."""
    jobs: dict[str, Callable[[], Factor]] = {
        key: partial(factorize, matrix, damping=damping, name=key) for key, matrix in hessians.matrix.items()
    }
    return in_threads(jobs, {key: float(len(m)) ** 3 for key, m in hessians.matrix.items()}, workers)


def quantize_layers(
    weights: Mapping[str, Tensor], factors: Mapping[str, Factor], key: Mapping[str, str],
    codings: Mapping[str, Coding], *, workers: int | None = None, tick: Tick = silent,
) -> dict[str, Quantized]:  # fmt: skip
    """Quantize matrices, those with the same Hessian and coding together; the number of workers changes no result.

    Args:
        weights: matrices [O, I] by name.
        factors: from ``factorize_all``.
        key: key in ``factors`` of each matrix; a matrix without one is quantized as if its inputs were independent.
        codings: coding of each matrix to quantize, by name.
        workers: matrices quantized at a time; None for torch's number of threads.
        tick: called with the number of weights so far.

    Raises:
        InputError: a weight is NaN or infinite, or a step size does not fit fp16; the message names the matrix.
    """
    groups: dict[tuple[str, Coding], list[str]] = {}
    for name, coding in codings.items():
        groups.setdefault((key.get(name, name), coding), []).append(name)
    total, done = sum(weights[name].numel() for name in codings), [0]

    def work(names: Sequence[str], coding: Coding, factor: Factor | None) -> list[Quantized]:
        found = quantize_together([weights[n] for n in names], factor, coding, names)
        done[0] += sum(weights[n].numel() for n in names)
        tick(done[0], total, "quantizing")
        return found

    jobs: dict[tuple[str, ...], Callable[[], list[Quantized]]] = {
        tuple(names): partial(work, names, coding, factors.get(at)) for (at, coding), names in groups.items()
    }
    sizes = {names: float(sum(weights[n].numel() * (weights[n].size(-1) + 2048) for n in names)) for names in jobs}
    found = in_threads(jobs, sizes, workers)
    by_name = {n: q for names, results in found.items() for n, q in zip(names, results, strict=True)}
    return {name: by_name[name] for name in codings}


def quantize_together(
    weights: Sequence[Tensor], factor: Factor | None, coding: Coding, names: Sequence[str]
) -> list[Quantized]:
    """Quantize matrices [O_n, I] that read the same input; with ``factor`` None as if inputs were independent."""
    pieces = [check_matrix(w, n) for w, n in zip(weights, names, strict=True)]
    stacked_OI = torch.cat(pieces)
    columns = stacked_OI.size(1)
    step_O = torch.cat([
        row_step(w, bits=coding.bits, clip=coding.clip, k=coding.k, scales=coding.scales, name=n)
        for w, n in zip(pieces, names, strict=True)
    ])  # fmt: skip
    order_I = torch.arange(columns) if factor is None else factor.order_I
    if factor is not None and bool(factor.dead_I.any()):
        stacked_OI = stacked_OI.masked_fill(factor.dead_I, 0.0)
    w_IO = stacked_OI.t().contiguous()[order_I]
    feedback_II, column_I = torch.zeros(columns, columns) if factor is None else factor.feedback_II, None
    if coding.columns and factor is not None:
        column_I = column_steps(factor, stacked_OI, step_O.float())
        scale_I = column_I.float()[order_I]
        w_IO /= scale_I[:, None]
        feedback_II = feedback_II * scale_I[:, None] / scale_I
    offsets = [0]
    for piece in pieces:
        offsets.append(offsets[-1] + piece.size(0))
    limit = 2 ** (coding.bits - 1) - 1 if coding.clipped else LIMIT
    shrink_I = _shrink(w_IO, step_O.float(), coding.rate)
    symbols_IO = torch.empty(w_IO.shape, dtype=torch.int8)
    for start in range(0, columns, BLOCK):  # of columns that are done, w_IO holds the errors
        block = slice(start, min(start + BLOCK, columns))
        wanted_CO = torch.addmm(w_IO[block], feedback_II[:start, block].t(), w_IO[:start])
        symbols_IO[block] = quantize_columns(
            wanted_CO, w_IO[block], feedback_II[block, block].contiguous(), step_O.float(), shrink_C=shrink_I[block],
            limit=limit, trellis=coding.trellis, ranges=offsets,
        )  # fmt: skip
    symbols_OI = symbols_IO[torch.argsort(order_I)].t().contiguous()
    return [
        Quantized(symbols_OI[a:b].contiguous(), step_O[a:b].clone(), coding.bits, coding.trellis, column_I)
        for a, b in pairwise(offsets)
    ]


def column_steps(factor: Factor, weight_OI: Tensor, step_O: Tensor) -> Tensor:
    """Return the step size of each column, fp16 [I] on the grid: proportional to 1 / M_jj, geometric mean near 1.

    No step size is so small that the symbols of ``weight_OI`` would leave their range.
    """
    log_I = factor.weight_I.double().log2()
    wanted_I = (log_I.mean() - log_I).clamp_(-OCTAVES, OCTAVES).exp2().float()
    inverse_O = torch.where(step_O > 0, 1 / step_O, torch.zeros_like(step_O))
    least_I = (weight_OI * inverse_O[:, None]).abs().amax(0) / (0.8 * LIMIT)  # errors pulled in may add to a weight
    return torch.from_numpy(grid.nearest(torch.maximum(wanted_I, least_I).numpy()))


def _shrink(w_IO: Tensor, step_O: Tensor, rate: float) -> Tensor:
    """Return factors on the weights of each column, to apply before symbols are chosen.

    The symbol p for a weight x should minimize ``(x - p)^2 + rate * bits(p)``, in units of the step size. For a column
    of Gaussian symbols of variance v, bits(p) is ``p^2 log2(e) / 2v`` and a constant, and the sum is a square again:
    that of ``x / (1 + t) - p`` with ``t = rate log2(e) / 2v``.
    """
    if rate == 0:
        return torch.ones(len(w_IO))
    inverse_O = torch.where(step_O > 0, 1 / step_O, torch.zeros_like(step_O))
    variance_I = (w_IO * inverse_O).square().mean(1) + 1 / 12  # symbols carry the rounding's own variance
    return 1 / (1 + rate * math.log2(math.e) / (2 * variance_I))
