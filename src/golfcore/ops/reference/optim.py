"""Optimizer steps, tensor by tensor, in place."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from golfcore.ops.reference import widen

Tensors = Sequence[torch.Tensor]


def _store(i: int, p: torch.Tensor, value: torch.Tensor, emas: Tensors, ema_decay: float, shadows: Tensors) -> None:
    p.copy_(value)
    if emas:
        emas[i].add_(value - emas[i], alpha=1 - ema_decay)
    if shadows:
        shadows[i].copy_(value)


def adamw_(
    params: Tensors, grads: Tensors, exp_avgs: Tensors, exp_avg_sqs: Tensors, lr: Sequence[float],
    weight_decay: Sequence[float], betas: tuple[float, float], eps: float, step: int, grad_scale: float,
    emas: Tensors, ema_decay: float, shadows: Tensors,
) -> None:  # fmt: skip
    """See ``golfcore.ops.optim.adamw_``."""
    beta1, beta2 = betas
    for i, (p, g, m, v) in enumerate(zip(params, grads, exp_avgs, exp_avg_sqs, strict=True)):
        scaled = g.to(p.dtype) * grad_scale
        m.add_((1 - beta1) * (scaled - m))
        v.mul_(beta2).add_((1 - beta2) * scaled.square())
        update = (m / (1 - beta1**step)) / ((v / (1 - beta2**step)).sqrt() + eps)
        _store(i, p, p * (1 - lr[i] * weight_decay[i]) - lr[i] * update, emas, ema_decay, shadows)


def muon_momentum_(grads: Tensors, buffers: Tensors, momentum: float, row_norm: bool, eps: float) -> torch.Tensor:
    """Set ``m = momentum m + g``; return the bank of ``g + momentum m``, each of norm 1, in the buffers' dtype."""
    updates = []
    for g, m in zip(grads, buffers, strict=True):
        m.mul_(momentum).add_(g.to(m.dtype))
        u = g.to(m.dtype) + momentum * m
        if row_norm:
            u = u / (u.norm(dim=1, keepdim=True) + eps)
        updates.append(u / (u.norm() + eps))
    return torch.stack(updates)


def orthogonalize(bank_BRC: torch.Tensor, coefficients: Sequence[tuple[float, float, float]]) -> torch.Tensor:
    """Iterate ``X <- a X + (b A + c A^2) X`` with ``A = X X^T`` (Newton-Schulz), wide side out, in fp32 or fp64."""
    x = widen(bank_BRC)
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    for a, b, c in coefficients:
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(bank_BRC.dtype)


def muon_apply_(
    params: Tensors, update_BRC: torch.Tensor, lr: float, weight_decay: float, factor: float,
    emas: Tensors, ema_decay: float, shadows: Tensors,
) -> None:  # fmt: skip
    """Set ``p = (1 - lr weight_decay) p - lr factor update``."""
    for i, p in enumerate(params):
        value = p * (1 - lr * weight_decay) - lr * factor * update_BRC[i].to(p.dtype)
        _store(i, p, value, emas, ema_decay, shadows)
