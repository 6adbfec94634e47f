"""Low-rank correction of what quantisation lost (LQER, arXiv:2402.02446), kept where it is worth its bytes.

The factors are those of the best approximation of the error as the layer's output sees it: with ``H = L L^T``, the
leading singular triples of ``E L``. Shapes: O outputs, I inputs, R rank.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from golfcore.artifact.inspect import order0_bits
from golfcore.artifact.model_io import StoredTensor
from golfcore.artifact.weights import LEFT, RIGHT
from golfcore.quant.measure import hessian_error
from golfcore.quant.rtn import quantise_rows

BITS = 6


def corrected(item: StoredTensor, weight_OI: Tensor, hessian_II: Tensor, *, rank: int, damping: float) -> StoredTensor:
    """``item`` with a correction of ``rank``, or as it is where finer steps would buy more for the same bytes.

    A matrix of n weights that gets b more bits has its squared error divided by ``4^(b / n)``; a correction must do
    better than that with its own bits.

    Args:
        item: the quantised matrix.
        weight_OI: what it stands for.
        hessian_II: of its input.
        rank: of the correction; at most both sides of the matrix.
        damping: as in GPTQ.
    """
    weight_OI = weight_OI.detach().float().cpu()
    error_OI = weight_OI - item.dequantise()
    damped_II = hessian_II + torch.eye(len(hessian_II)) * damping * hessian_II.diagonal().mean()
    lower_II, failed = torch.linalg.cholesky_ex(damped_II)
    rank = min(rank, *error_OI.shape)
    if rank < 1 or int(failed) or not error_OI.any():
        return item
    u_OK, size_K, v_KI = torch.linalg.svd(error_OI @ lower_II, full_matrices=False)
    left_OR = u_OK[:, :rank]
    right_RI = torch.linalg.solve_triangular(lower_II, size_K[:rank, None] * v_KI[:rank], upper=False, left=False)
    factors = tuple(
        _factor(item.name + suffix, factor) for suffix, factor in ((LEFT, left_OR), (RIGHT, right_RI))
    )  # fmt: skip
    better = dataclasses.replace(item, low_rank=(factors[0], factors[1]))
    before = hessian_error(weight_OI, error_OI, hessian_II)
    after = hessian_error(weight_OI, weight_OI - better.dequantise(), hessian_II)
    spent = sum(order0_bits(f.values.numpy()) * f.values.numel() + 3 * f.values.size(0) for f in factors)
    return better if after < before * 0.25 ** (spent / weight_OI.numel()) else item


def _factor(name: str, factor: Tensor) -> StoredTensor:
    quantised = quantise_rows(factor, bits=BITS, clip="absmax", k=1.0, scales="log8", name=name)
    return StoredTensor(name, "low_rank", quantised.symbols_OI, quantised.scale_O, BITS)
