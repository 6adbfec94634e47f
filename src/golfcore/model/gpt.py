"""The contest's baseline GPT (`records/track_10min_16mb/2026-03-17_NaiveBaseline`).

Pre-norm blocks of grouped-query attention and relu^2 MLP, no biases and no norm gains. RMSNorm of the embedding gives
x0, which every block mixes back in per channel (resid_mix); the first half of the blocks pushes its outputs and the
second half pops them (U-Net skips); q and k are normalised per head, q times a learned gain; output projections start
at zero, so every block starts as the identity; logits are soft-capped.

Matrix products are torch's; what lies between them is ``golfcore.ops``. Weights are kept in fp32 and cast to the
activations' dtype where they are used. A block hands its last branch on unadded, with its scale, so that the addition
happens inside the next norm's pass over the stream.

Shape suffixes: B batch, T time, D model, N query heads, K key/value heads, H head dimension, R rotary
pairs, V vocabulary.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from golfcore import ops
from golfcore.model.base import Batch, Context, LanguageModel
from golfcore.model.gpt_config import GPTConfig
from golfcore.model.registry import Role


class Linear(nn.Module):
    """``y = x W^T``; W is [out, in] in fp32, cast to x's dtype for the product."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(d_out, d_in))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype))


class Rotary(nn.Module):
    """Rotary position embedding (RoFormer, arXiv:2104.09864), halves rotated against each other."""

    def __init__(self, head_dim: int, base: float) -> None:
        super().__init__()
        self.head_dim, self.base = head_dim, base
        self.cos_TR = self.sin_TR = torch.empty(0, head_dim // 2)  # derived, so neither saved nor moved

    def tables(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """fp32 cos and sin [length, head_dim / 2]; grown when a longer window comes by."""
        if self.cos_TR.size(0) < length or self.cos_TR.device != device:
            frequency = self.base ** (-torch.arange(0, self.head_dim, 2, device=device).float() / self.head_dim)
            angle_TR = torch.outer(torch.arange(length, device=device).float(), frequency)
            self.cos_TR, self.sin_TR = angle_TR.cos(), angle_TR.sin()
        return self.cos_TR[:length], self.sin_TR[:length]


class Attention(nn.Module):
    """Causal grouped-query attention with q/k norm, rotary positions and a gain per query head."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        d, kv = config.model_dim, config.kv_dim
        self.head_dim = config.head_dim
        self.q, self.k, self.v, self.o = Linear(d, d), Linear(d, kv), Linear(d, kv), Linear(d, d)
        self.q_gain_N = nn.Parameter(torch.full((config.num_heads,), config.qk_gain_init))

    def forward(self, x_BTD: Tensor, cos_TR: Tensor, sin_TR: Tensor) -> Tensor:
        q_BTNH, k_BTKH, v_BTKH = (f(x_BTD).unflatten(-1, (-1, self.head_dim)) for f in (self.q, self.k, self.v))
        q_BTNH, k_BTKH = ops.qk(q_BTNH, k_BTKH, cos_TR, sin_TR, self.q_gain_N)
        out_BTD: Tensor = self.o(ops.attention(q_BTNH, k_BTKH, v_BTKH).flatten(-2))
        return out_BTD


class MLP(nn.Module):
    """``Down(relu(Up(x))^2)`` (Primer, arXiv:2109.08668)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.up = Linear(config.model_dim, config.model_dim * config.mlp_mult)
        self.down = Linear(config.model_dim * config.mlp_mult, config.model_dim)

    def forward(self, x_BTD: Tensor) -> Tensor:
        out_BTD: Tensor = self.down(ops.relu2(self.up(x_BTD)))
        return out_BTD


class Stream(NamedTuple):
    """The residual stream as ``x + s * y``: a branch's output y waits for the next norm to add it."""

    x_BTD: Tensor
    y_BTD: Tensor | None = None
    s_D: Tensor | None = None

    def sum(self) -> Tensor:
        """The stream itself."""
        if self.y_BTD is None or self.s_D is None:
            return self.x_BTD
        return torch.addcmul(self.x_BTD, self.s_D.to(self.x_BTD.dtype), self.y_BTD)


class Block(nn.Module):
    """``xin = a x + b x0; x = xin + s_a Attn(norm(xin)); x = x + s_m MLP(norm(x))``."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        d = config.model_dim
        self.attn, self.mlp = Attention(config), MLP(config)
        self.resid_mix_2D = nn.Parameter(torch.stack((torch.ones(d), torch.zeros(d))))
        self.attn_scale_D = nn.Parameter(torch.ones(d))
        self.mlp_scale_D = nn.Parameter(torch.ones(d))

    def forward(self, stream: Stream, x0_BTD: Tensor, cos_TR: Tensor, sin_TR: Tensor) -> Stream:
        a_D, b_D = self.resid_mix_2D
        x_BTD, h_BTD = ops.rms_norm(stream.x_BTD, stream.y_BTD, x0_BTD, a=a_D, s=stream.s_D, b=b_D)
        attn_BTD = self.attn(h_BTD, cos_TR, sin_TR)
        x_BTD, h_BTD = ops.rms_norm(x_BTD, attn_BTD, s=self.attn_scale_D)
        return Stream(x_BTD, self.mlp(h_BTD), self.mlp_scale_D)


class GPT(LanguageModel):
    """The family's module; see ``golfcore.model.base.LanguageModel`` for what it offers."""

    def __init__(self, config: GPTConfig, vocab_size: int) -> None:
        super().__init__()
        self.config, self.vocab_size = config, vocab_size
        self.embed = nn.Embedding(vocab_size, config.model_dim)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.encoder_layers = config.num_layers // 2
        self.skip_weight_SD = nn.Parameter(torch.ones(self.encoder_layers, config.model_dim))
        self.head = None if config.tie_embeddings else Linear(config.model_dim, vocab_size)
        self.rotary = Rotary(config.head_dim, config.rope_base)
        self.readout = nn.Identity()  # what the tied embedding multiplies passes here, for taps()

    def hidden(self, symbols_BT: Tensor) -> Tensor:
        """The normed output [B, T, D] of the last block."""
        cos_TR, sin_TR = self.rotary.tables(symbols_BT.size(1), symbols_BT.device)
        _, x0_BTD = ops.rms_norm(self.embed(symbols_BT).to(self.activation_dtype))
        stream = Stream(x0_BTD)
        skips: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            if i >= self.encoder_layers and skips:
                weight_D = self.skip_weight_SD[i - self.encoder_layers].to(x0_BTD.dtype)
                stream = Stream(torch.addcmul(stream.sum(), weight_D, skips.pop()))
            stream = block(stream, x0_BTD, cos_TR, sin_TR)
            if i < self.encoder_layers:
                stream = Stream(stream.sum())
                skips.append(stream.x_BTD)
        return ops.rms_norm(stream.x_BTD, stream.y_BTD, s=stream.s_D)[1]

    def head_logits(self, x_BTD: Tensor) -> Tensor:
        """Soft-capped fp32 logits [..., V] of normed outputs."""
        weight_VD = (self.embed if self.head is None else self.head).weight
        cap = self.config.logit_softcap
        return cap * torch.tanh(F.linear(self.readout(x_BTD), weight_VD.to(x_BTD.dtype)).float() / cap)

    def loss(self, batch: Batch, context: Context) -> tuple[Tensor, dict[str, Tensor]]:
        weight_VD = (self.embed if self.head is None else self.head).weight
        x_BTD = self.hidden(batch.inputs_BT)
        ce = ops.linear_cross_entropy(x_BTD, weight_VD, batch.targets_BT, self.config.logit_softcap)
        return ce, {"ce": ce.detach()}

    def new_state(self, rows: int) -> dict[str, Tensor]:
        return {"symbols": torch.empty(rows, 0, dtype=torch.int64, device=self.embed.weight.device)}

    def logits(self, state: dict[str, Tensor], symbols_BT: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        # The state is what was read: exact, and as fast as any other when a window comes in one piece.
        seen_BT = torch.cat((state["symbols"], symbols_BT), dim=1)
        x_BTD = self.hidden(seen_BT)[:, seen_BT.size(1) - symbols_BT.size(1) :]
        return self.head_logits(x_BTD), {"symbols": seen_BT}

    def taps(self) -> dict[str, nn.Module]:
        return super().taps() | ({"embed.weight": self.readout} if self.head is None else {})

    def parameter_roles(self) -> dict[str, Role]:
        roles: dict[str, Role] = {}
        for name, parameter in self.named_parameters():
            if name == "embed.weight":
                roles[name] = Role("embedding", "embed")
            elif name == "head.weight":
                roles[name] = Role("head", "head")
            elif parameter.ndim == 2 and name.endswith(".weight"):
                roles[name] = Role("matrix", name.split(".")[-2])
            else:
                roles[name] = Role("vector", "control")
        return roles


def build_gpt(config: GPTConfig, vocab_size: int, seed: int) -> GPT:
    """A GPT with the baseline's initial weights, every one drawn from ``seed``."""
    model = GPT(config, vocab_size)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name == "embed.weight" and config.tie_embeddings:
                parameter.normal_(std=config.tied_embed_init_std, generator=generator)
            elif name == "embed.weight":
                parameter.normal_(generator=generator)
            elif name.endswith((".o.weight", ".down.weight")) or name == "head.weight":
                parameter.zero_()
            elif name.endswith(".weight"):
                # Kaiming-uniform with a = sqrt(5), the default of nn.Linear that the baseline leaves in place.
                bound = 1 / math.sqrt(parameter.size(1))
                parameter.uniform_(-bound, bound, generator=generator)
    return model
