"""Stand in for ``golfcore.ops``: the references in plain torch, and faster torch where a GPU has it.

On a processor products and sums are computed in fp32 and rounded once, as golfcore's kernels do. On a GPU bf16 products
stay bf16, and attention runs by FlashAttention-3 where it is installed, else by torch's own, document by document.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from golfcore.ops.optim import NORM_EPS, POLAR_EXPRESS, QUINTIC
from golfcore.ops.reference import activation, bitpack, optim, widen
from golfcore.ops.reference.embed import embed
from golfcore.ops.reference.head import linear_cross_entropy
from golfcore.ops.reference.linear import linear as linear_fp32
from golfcore.ops.reference.norm import mix_norm, residual
from golfcore.ops.reference.qk import qk

__all__ = [
    "POLAR_EXPRESS", "QUINTIC", "adamw_", "add_fp32_", "attention", "embed", "fake_quantize", "leaky2", "leaves_fp32",
    "linear", "linear_cross_entropy", "mix_norm", "muon_", "muon_apply_", "muon_update", "qk", "relu2", "residual",
    "rms_norm", "update_dtype",
]  # fmt: skip

Tensors = Sequence[Tensor]

try:
    FLASH: Any = importlib.import_module("flash_attn_interface")
except ImportError:
    FLASH = None


def relu2(u: Tensor) -> Tensor:
    """Return ``relu(u)^2``."""
    return activation.leaky2(u, 0.0)


def leaky2(u: Tensor) -> Tensor:
    """Return the square of a leaky ReLU of slope 0.5."""
    return activation.leaky2(u, 0.5)


def rms_norm(x: Tensor, *, scale: float = 1.0, eps: float = 1e-6) -> Tensor:
    """Return the RMS norm of ``x``."""
    return mix_norm(x, scale=scale, eps=eps)[1]


def linear(x: Tensor, *weights_OI: Tensor) -> tuple[Tensor, ...]:
    """Return ``x W^T`` for each W in the dtype of ``x``."""
    return tuple(F.linear(x, w.to(x.dtype)) for w in weights_OI) if x.is_cuda else linear_fp32(x, *weights_OI)


def fake_quantize(w: Tensor, scales: Tensor, fmt: str) -> Tensor:
    """Return ``w`` as rows of symbols and scales would store it, with the gradient of the identity."""
    return bitpack.fake_quantize(w, scales, fmt, w.shape[1])


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _documents(q: Tensor, k: Tensor, v: Tensor, bounds: Tensor | None) -> Tensor:
    """Return causal attention of [B, T, N, H] within each document; ``bounds`` is None if each row is one."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    cuts = [0, q.shape[2]] if bounds is None else bounds.tolist()
    parts = [
        F.scaled_dot_product_attention(q[:, :, a:b], k[:, :, a:b], v[:, :, a:b], is_causal=True, enable_gqa=True)
        for a, b in pairwise(cuts)
        if b > a
    ]
    return torch.cat(parts, 2).transpose(1, 2)


def attention(
    q_BTNH: Tensor, k_BTKH: Tensor, v_BTKH: Tensor, gate_BTN: Tensor | None = None, *,
    cu_seqlens: Tensor | None = None, xsa: bool = False, longest: int = 0,
) -> Tensor:  # fmt: skip
    """Compute what ``golfcore.ops.attention`` computes."""
    q, k, v = q_BTNH, k_BTKH, v_BTKH
    y: Any
    if not q.is_cuda:
        q, k, v = widen(q), widen(k), widen(v)
        y = _documents(q, k, v, cu_seqlens)
    elif FLASH is None:
        y = _documents(q, k, v, cu_seqlens)
    elif cu_seqlens is None:
        y = FLASH.flash_attn_func(q, k, v, causal=True)
    else:
        longest = longest or q.shape[1]
        y = FLASH.flash_attn_varlen_func(q[0], k[0], v[0], cu_seqlens, cu_seqlens, longest, longest, causal=True)
        y = (y[0] if isinstance(y, tuple) else y)[None]
    if isinstance(y, tuple):
        y = y[0]
    if xsa:
        unit = F.normalize(v.float(), dim=-1).to(y.dtype).repeat_interleave(q.shape[2] // v.shape[2], dim=2)
        y = y - (y * unit).sum(-1, keepdim=True) * unit
    if gate_BTN is not None:
        y = y * gate_BTN.to(y.dtype).unsqueeze(-1)
    out: Tensor = y.to(q_BTNH.dtype)
    return out


def leaves_fp32(x: Tensor) -> bool:
    """Say that products are widened before they are computed."""
    return False


def add_fp32_(out_NM: Tensor, a_NK: Tensor, b_KM: Tensor) -> Tensor:
    """Add a product in fp32 to a matrix, in place."""
    return out_NM.add_(a_NK.float() @ b_KM.float())


# --- optimizers -------------------------------------------------------------------------------------------------------


def update_dtype(buffer: Tensor) -> torch.dtype:
    """Return the dtype of ``muon_update``: bf16 on a GPU."""
    return torch.bfloat16 if buffer.is_cuda else buffer.dtype


@torch.no_grad()
def adamw_(
    params: Tensors, grads: Tensors, exp_avgs: Tensors, exp_avg_sqs: Tensors, *, lr: Sequence[float],
    weight_decay: Sequence[float], betas: tuple[float, float], eps: float, step: int, emas: Tensors, ema_decay: float,
) -> None:  # fmt: skip
    """Take one AdamW step; see ``golfcore.ops.optim.adamw_``."""
    optim.adamw_(params, grads, exp_avgs, exp_avg_sqs, lr, weight_decay, betas, eps, step, 1.0, emas, ema_decay, ())


@torch.no_grad()
def muon_update(
    grads: Tensors, buffers: Tensors, *, momentum: float, coefficients: Any, row_norm: bool
) -> Tensor:  # fmt: skip
    """Move the momenta and return the orthogonalized updates [B, R, C]."""
    x = optim.muon_momentum_(grads, buffers, momentum, row_norm, NORM_EPS).to(update_dtype(buffers[0]))
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    for a, b, c in coefficients:
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


@torch.no_grad()
def muon_apply_(
    params: Tensors, update_BRC: Tensor, *, lr: float, weight_decay: float, emas: Tensors, ema_decay: float
) -> None:  # fmt: skip
    """Move each matrix by its update, then its average."""
    rows, columns = params[0].shape
    optim.muon_apply_(params, update_BRC, lr, weight_decay, max(1.0, rows / columns) ** 0.5, emas, ema_decay, ())


def muon_(
    params: Tensors, grads: Tensors, buffers: Tensors, *, lr: float, weight_decay: float, emas: Tensors,
    ema_decay: float, **how: Any,
) -> None:  # fmt: skip
    """Take one Muon step on matrices of one shape."""
    update_BRC = muon_update(grads, buffers, **how)
    muon_apply_(params, update_BRC, lr=lr, weight_decay=weight_decay, emas=emas, ema_decay=ema_decay)
