"""The GPT's blocks: attention, MLP, and how their outputs join the residual stream.

torch computes the matrix products, ``golfcore.ops`` everything between them. A block does not add its last branch to
the residual stream: it hands branch and scale on, and the next norm adds them in its own pass over the stream.

Shape suffixes: B batch, T time, D model, N query heads, K key/value heads, H head dimension, R rotary pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from golfcore import ops
from golfcore.model.gpt.config import GATE_INPUTS, GPTConfig, layer_set
from golfcore.model.gpt.parts import EPS, Linear


class Shared(NamedTuple):
    """Inputs that every block of a forward pass reads beside the residual stream."""

    x0_BTD: Tensor
    cos_TR: Tensor
    sin_TR: Tensor
    values: dict[int, Tensor]  # what value embeddings add, by layer [B, T, K, H]
    bounds: Tensor | None = None  # of packed documents in the rows laid end to end
    longest: int = 0  # tokens that none of their segments exceeds
    cache: Callable[..., Tensor] | None = None  # attends in place of ``attend`` (gpt/decoding.py)


class Stream(NamedTuple):
    """The residual stream as ``x + s * y``; the next norm adds the branch output y."""

    x_BTD: Tensor
    y_BTD: Tensor | None = None
    s_D: Tensor | None = None

    def sum(self) -> Tensor:
        """Return ``x + s * y``, the stream itself."""
        if self.y_BTD is None or self.s_D is None:
            return self.x_BTD
        return ops.residual(self.x_BTD, self.y_BTD, self.s_D)


def tail(x_BTD: Tensor, last: int) -> Tensor:
    """Return the ``last`` positions of ``x_BTD`` as a view; all positions if ``last`` is 0."""
    return x_BTD[:, -last:] if last else x_BTD


def attend(
    q_BTNH: Tensor, k_BTKH: Tensor, v_BTKH: Tensor, gate_BTN: Tensor | None, xsa: bool, shared: Shared
) -> Tensor:
    """Return the attention of rows, [B, T, N, H], within the segments of ``shared`` if there are any."""
    if shared.bounds is None:
        return ops.attention(q_BTNH, k_BTKH, v_BTKH, gate_BTN, xsa=xsa)
    q, k, v = (t.flatten(0, 1)[None] for t in (q_BTNH, k_BTKH, v_BTKH))
    gate = None if gate_BTN is None else gate_BTN.flatten(0, 1)[None]
    return ops.attention(q, k, v, gate, cu_seqlens=shared.bounds, xsa=xsa, longest=shared.longest).view_as(q_BTNH)


class Attention(nn.Module):
    """Causal grouped-query attention with q/k norm, rotary positions and a gain per query head.

    Options: exclusive self-attention (``ops.attention``), values by token, packed documents, and a factor on each head
    of each token, from the block's normed input h:

    - ``head``: ``2 sigmoid(W h[:12])``, W starting at zero (entry 2026-04-16);
    - ``dense``: ``sigmoid(W h)``, W starting near zero (entry 2026-04-19);
    - ``sparse``: ``sigmoid(scale W h[:12])``, W starting at zero (entry 2026-04-23).
    """

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        d, kv = config.model_dim, config.kv_dim
        self.head_dim, self.layer = config.head_dim, layer
        self.xsa = layer in layer_set(config.xsa_layers, config.num_layers, "model.xsa_layers")
        self.q, self.k, self.v, self.o = Linear(d, d), Linear(d, kv), Linear(d, kv), Linear(d, d)
        self.q_gain_N = nn.Parameter(torch.full((config.num_heads,), config.qk_gain_init))
        self.gate, self.gate_scale = config.attn_gate, config.attn_gate_scale
        if self.gate != "none":
            inputs = d if self.gate == "dense" else GATE_INPUTS
            self.gate_NI = nn.Parameter(torch.zeros(config.num_heads, inputs))

    def gates(self, x_BTD: Tensor) -> Tensor | None:
        """Return the factor on each head of each token, [B, T, N]."""
        if self.gate == "none":
            return None
        (logits_BTN,) = ops.linear(x_BTD[..., : self.gate_NI.size(1)], self.gate_NI)
        if self.gate == "head":
            return 2 * torch.sigmoid(logits_BTN)
        return torch.sigmoid(logits_BTN if self.gate == "dense" else self.gate_scale * logits_BTN)

    def forward(self, x_BTD: Tensor, shared: Shared, last: int = 0) -> Tensor:
        projected = ops.linear(x_BTD, self.q.weight, self.k.weight, self.v.weight)
        q_BTNH, k_BTKH, v_BTKH = (y.view(*y.shape[:-1], -1, self.head_dim) for y in projected)
        q_BTNH, k_BTKH = ops.qk(q_BTNH, k_BTKH, shared.cos_TR, shared.sin_TR, self.q_gain_N, eps=EPS)
        if self.layer in shared.values:
            v_BTKH = v_BTKH + shared.values[self.layer]
        y_BTNH = (shared.cache or attend)(q_BTNH, k_BTKH, v_BTKH, self.gates(x_BTD), self.xsa, shared)
        out_BTD: Tensor = self.o(tail(y_BTNH.flatten(-2), last))
        return out_BTD


class MLP(nn.Module):
    """``Down(relu(Up(x))^2)`` (Primer, arXiv:2109.08668), the same with leaky ReLU of slope 0.5, or SwiGLU.

    SwiGLU (arXiv:2002.05202) takes ``silu(a) b`` of the two halves of an Up twice as wide.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        hidden = config.model_dim * config.mlp_mult
        self.activation = config.activation
        self.up = Linear(config.model_dim, hidden * (2 if self.activation == "swiglu" else 1))
        self.down = Linear(hidden, config.model_dim)

    def forward(self, x_BTD: Tensor) -> Tensor:
        u = self.up(x_BTD)
        if self.activation == "swiglu":
            a, b = u.chunk(2, dim=-1)
            hidden = F.silu(a) * b
        else:
            hidden = ops.relu2(u) if self.activation == "relu2" else ops.leaky2(u)
        out_BTD: Tensor = self.down(hidden)
        return out_BTD


class Block(nn.Module):
    """``xin = a x + b x0; x = xin + s_a Attn(c norm(xin)); x = x + s_m MLP(c norm(x))``.

    a and b (resid_mix) start at 1 and 0; ``phase`` starts them at p and 1 - p with ``p = sigmoid(3 (i / (L-1) - 1/2))``
    (entry 2026-03-19); ``none`` leaves x as it is. c is ``1 / sqrt(i + 1)`` with ``layer_scale``, else 1.

    With ``last`` the output of the block holds only the last positions: keys and values are those of all positions, but
    what follows attention (its output projection and the MLP) is computed only for the last. Used in the last block.
    """

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        d = config.model_dim
        self.attn, self.mlp = Attention(config, layer), MLP(config)
        self.mixed = config.resid_mix != "none"
        if self.mixed:
            phase = 1 / (1 + math.exp(-3 * (layer / max(1, config.num_layers - 1) - 0.5)))
            a = phase if config.resid_mix == "phase" else 1.0
            self.resid_mix_2D = nn.Parameter(torch.tensor([a, 1 - a])[:, None].repeat(1, d))
        self.attn_scale_D = nn.Parameter(torch.ones(d))
        self.mlp_scale_D = nn.Parameter(torch.ones(d))
        self.scale = 1 / math.sqrt(layer + 1) if config.layer_scale else 1.0

    def _enter(self, stream: Stream, shared: Shared) -> tuple[Tensor, Tensor]:
        """Return xin and its norm."""
        if not self.mixed:
            return ops.mix_norm(stream.x_BTD, stream.y_BTD, branch_gain=stream.s_D, scale=self.scale, eps=EPS)
        a_D, b_D = self.resid_mix_2D
        return ops.mix_norm(
            stream.x_BTD, stream.y_BTD, shared.x0_BTD, stream_gain=a_D, branch_gain=stream.s_D, skip_gain=b_D,
            scale=self.scale, eps=EPS,
        )  # fmt: skip

    def forward(self, stream: Stream, shared: Shared, last: int = 0) -> Stream:
        x_BTD, h_BTD = self._enter(stream, shared)
        attn_BTD = self.attn(h_BTD, shared, last)
        x_BTD, h_BTD = ops.mix_norm(
            tail(x_BTD, last), attn_BTD, branch_gain=self.attn_scale_D, scale=self.scale, eps=EPS
        )
        return Stream(x_BTD, self.mlp(h_BTD), self.mlp_scale_D)

    def in_lanes(
        self, a_BTD: Tensor, m_BTD: Tensor, keep_2: Tensor, post_22: Tensor, shared: Shared, last: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Run one block on two residual lanes (entry 2026-03-31): attention reads the first, the MLP the second.

        Each lane becomes ``keep`` times itself plus both outputs, weighted: ``post[branch, lane]``.
        """
        dtype = a_BTD.dtype
        _, h_BTD = self._enter(Stream(a_BTD), shared)
        a_BTD, m_BTD = tail(a_BTD, last), tail(m_BTD, last)
        branches = (
            self.attn_scale_D.to(dtype) * self.attn(h_BTD, shared, last),
            self.mlp_scale_D.to(dtype) * self.mlp(ops.rms_norm(m_BTD, scale=self.scale, eps=EPS)),
        )
        keep_2, post_22 = keep_2.to(dtype), post_22.to(dtype)
        lanes = [
            keep_2[lane] * x_BTD + post_22[0, lane] * branches[0] + post_22[1, lane] * branches[1]
            for lane, x_BTD in enumerate((a_BTD, m_BTD))
        ]
        return lanes[0], lanes[1]
