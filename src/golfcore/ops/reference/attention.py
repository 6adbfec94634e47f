"""Causal attention with grouped heads."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from golfcore.ops.reference import widen


def attention(
    q_BTNH: torch.Tensor,
    k_BTKH: torch.Tensor,
    v_BTKH: torch.Tensor,
    gate_BTN: torch.Tensor | None = None,
    cu_seqlens: torch.Tensor | None = None,
    window: int = 0,
    scale: float | None = None,
    xsa: bool = False,
) -> torch.Tensor:
    """Softmax over the visible keys of each query's document, then the two optional steps on the result."""
    group = q_BTNH.shape[2] // k_BTKH.shape[2]
    q, k, v = widen(q_BTNH), *(widen(x).repeat_interleave(group, dim=2) for x in (k_BTKH, v_BTKH))
    scores_BNTS = torch.einsum("btnh,bsnh->bnts", q, k) * (q.shape[3] ** -0.5 if scale is None else scale)
    hidden_TS = ~visible(q.shape[1], cu_seqlens, window, q.device)
    y = torch.einsum("bnts,bsnh->btnh", scores_BNTS.masked_fill(hidden_TS, -torch.inf).softmax(-1), v)
    if xsa:
        unit = F.normalize(v, dim=-1)
        y = y - (y * unit).sum(-1, keepdim=True) * unit
    if gate_BTN is not None:
        y = y * widen(gate_BTN).unsqueeze(-1)
    return y.to(q_BTNH.dtype)


def visible(length: int, cu_seqlens: torch.Tensor | None, window: int, device: torch.device) -> torch.Tensor:
    """Return bool [T, S]: whether query t sees key s."""
    t = torch.arange(length, device=device)
    seen = t[:, None] >= t
    if window > 0:
        seen &= t[:, None] - t < window
    if cu_seqlens is not None:
        document = torch.searchsorted(cu_seqlens[1:].long(), t, right=True)
        seen &= document[:, None] == document
    return seen
