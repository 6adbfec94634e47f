"""Correct quantized matrices by a low-rank matrix if it is worth its bytes (LQER, arXiv:2402.02446).

E is the error of the weights and H the Hessian of the layer's inputs. The factors are the best approximation of the
error of the layer's output: the left factor U has the leading eigenvectors of ``E H E^T`` as columns, the right one is
``U^T E``. Shapes: O
outputs, I inputs, R rank, K vectors of the search for them.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from golfcore.artifact.inspect import order0_bits
from golfcore.artifact.model_io import StoredTensor
from golfcore.artifact.weights import LEFT, RIGHT
from golfcore.quant.measure import hessian_error
from golfcore.quant.rtn import quantize_rows

BITS = 6
LEAST_BITS = 3.0  # that an entry of a factor costs at the least, its row's scale included
ROUNDS, SPARE = 6, 4  # of the search; vectors beyond the rank


def corrected(item: StoredTensor, weight_OI: Tensor, hessian_II: Tensor, *, rank: int, damping: float) -> StoredTensor:
    """Return ``item`` with a correction of ``rank``, or unchanged if a smaller step size is worth more for its bytes.

    A matrix of n weights that gets b more bits has its squared error divided by ``4^(b / n)``; a correction must do
    better than that with its own bits.

    Args:
        item: the quantized matrix.
        weight_OI: the matrix before quantization.
        hessian_II: Hessian of the layer's input.
        rank: rank of the correction; at most the shorter side of the matrix.
        damping: share of the mean diagonal that is added to the Hessian, as in GPTQ.
    """
    weight_OI = weight_OI.detach().float().cpu()
    error_OI = weight_OI - item.dequantize()
    rank = min(rank, *error_OI.shape)
    if rank < 1 or not error_OI.any():
        return item
    seen_OI = error_OI @ hessian_II + error_OI * (damping * hessian_II.diagonal().mean())
    left_OR, share = _leading(error_OI, seen_OI, rank)
    if 1 - share >= 0.25 ** (LEAST_BITS * rank * sum(error_OI.shape) / weight_OI.numel()):
        return item
    factors = tuple(
        _factor(item.name + suffix, factor) for suffix, factor in ((LEFT, left_OR), (RIGHT, left_OR.t() @ error_OI))
    )  # fmt: skip
    better = dataclasses.replace(item, low_rank=(factors[0], factors[1]))
    before = hessian_error(weight_OI, error_OI, hessian_II)
    after = hessian_error(weight_OI, weight_OI - better.dequantize(), hessian_II)
    spent = sum(order0_bits(f.values.numpy()) * f.values.numel() + 3 * f.values.size(0) for f in factors)
    return better if after < before * 0.25 ** (spent / weight_OI.numel()) else item


def _leading(error_OI: Tensor, seen_OI: Tensor, rank: int) -> tuple[Tensor, float]:
    """Return the leading eigenvectors [O, R] of ``E H E^T``, by subspace iteration, and their share of its trace.

    ``seen_OI`` is ``E H``.
    """
    generator = torch.Generator().manual_seed(0)
    basis_OK = torch.randn(len(error_OI), min(rank + SPARE, *error_OI.shape), generator=generator)
    for _ in range(ROUNDS):
        basis_OK = torch.linalg.qr(seen_OI @ (error_OI.t() @ basis_OK))[0]
    inner_KK = (basis_OK.t() @ seen_OI) @ (error_OI.t() @ basis_OK)
    value_K, vector_KK = torch.linalg.eigh((inner_KK + inner_KK.t()) / 2)  # ascending
    trace = float((seen_OI * error_OI).sum())
    share = float(value_K[-rank:].sum()) / trace if trace > 0 else 0.0
    return basis_OK @ vector_KK[:, -rank:].flip(1), share


def _factor(name: str, factor: Tensor) -> StoredTensor:
    quantized = quantize_rows(factor, bits=BITS, clip="absmax", k=1.0, scales="log8", name=name)
    return StoredTensor(name, "low_rank", quantized.symbols_OI, quantized.scale_O, BITS)
