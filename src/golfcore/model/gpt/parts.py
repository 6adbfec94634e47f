"""The parts of a GPT around its blocks: linear layers, positions, embeddings, documents, the soft-cap.

Shape suffixes: B batch, T time, D model, E a table's own width, G bigram slots, K key/value heads, H head dimension,
R rotary pairs, V vocabulary.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from golfcore import ops
from golfcore.model.gpt.config import GATE_INPUTS, GPTConfig

EPS = torch.finfo(
    torch.float32
).eps  # of every norm, as F.rms_norm has it by default; fresh embeddings feel a larger one


class Linear(nn.Module):
    """A linear layer ``y = x W^T``; W is [out, in] in fp32, cast to the dtype of x for the product."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(d_out, d_in))

    def forward(self, x: Tensor) -> Tensor:
        (y,) = ops.linear(x, self.weight)
        return y


class Rotary(nn.Module):
    """Rotary position embedding (RoFormer, arXiv:2104.09864) of the first ``rotary_dims`` of a head, halves paired.

    In windows of T > ``rope_train_len`` tokens, with s = T / rope_train_len, ``ntk`` stretches the base to
    ``base s^(d / (d - 2))``; ``yarn`` (arXiv:2309.00071) divides slow frequencies by s, leaves fast ones, goes linearly
    from 1 to 32 turns between them, and lengthens rotated queries and keys by ``0.1 ln s + 1``. So with scaling a
    token's logits depend on the length of the window, in training and evaluation alike.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.length = 0
        self.cos_TR = self.sin_TR = torch.empty(0, config.rotary_dims // 2)  # derived, so neither saved nor moved

    def tables(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return fp32 cos and sin [length, rotary_dims / 2]; made again for a longer or a scaled window.

        torch.compile makes them a part of its graph: a graph that reads kept tables is traced again when these change.
        """
        if torch.compiler.is_compiling():
            angle_TR, stretch = self._angles(length, device)
            return stretch * angle_TR.cos(), stretch * angle_TR.sin()
        scaled = self.config.rope_scaling != "none" and max(length, self.length) > self.config.rope_train_len
        if self.length < length or self.cos_TR.device != device or (scaled and self.length != length):
            angle_TR, stretch = self._angles(length, device)
            self.cos_TR, self.sin_TR, self.length = stretch * angle_TR.cos(), stretch * angle_TR.sin(), length
        return self.cos_TR[:length], self.sin_TR[:length]

    def _angles(self, length: int, device: torch.device) -> tuple[Tensor, float]:
        config, d, base = self.config, self.config.rotary_dims, self.config.rope_base
        s = max(1.0, length / config.rope_train_len)
        if config.rope_scaling == "ntk":
            base *= s ** (d / (d - 2))
        frequency = base ** (-torch.arange(0, d, 2, device=device).float() / d)
        stretch = 1.0
        if config.rope_scaling == "yarn" and s > 1:
            turns = frequency * config.rope_train_len / (2 * math.pi)
            kept = ((turns - 1) / (32 - 1)).clamp(0, 1)
            frequency = kept * frequency + (1 - kept) * frequency / s
            stretch = 0.1 * math.log(s) + 1
        return torch.outer(torch.arange(length, device=device).float(), frequency), stretch


class InputEmbedding(nn.Module):
    """Token embedding, hashed bigrams, smear gate: ``e_t = E[x_t] + c B[hash(x_{t-1}, x_t)]``, then what smear adds.

    - ``token``: ``e_t + l sigmoid(w . e_t[:12]) e_{t-1}``, starting at l = 0 (entry 2026-04-16);
    - ``channel``: ``(1 - g) e_t + g e_{t-1}`` with ``g = sigmoid(u)`` for each channel (entry 2026-03-19);
    - ``mean``: the same with the mean of all ``e_s, s <= t`` of the document instead of ``e_{t-1}``.

    Nothing passes from one document into the next: a document's first token keeps its ``e_t``, and the mean starts
    anew. The projection of a narrow table is applied to the table, not to the tokens.
    """

    def __init__(self, config: GPTConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        d, e, b = config.model_dim, config.embed_dim, config.bigram_dim
        self.weight = nn.Parameter(torch.empty(vocab_size, e or d))
        self.proj = Linear(e, d) if e else None
        if config.bigram_slots:
            self.bigram_GE = nn.Parameter(torch.empty(config.bigram_slots, b or d))
            self.bigram_proj = Linear(b, d) if b else None
            self.bigram_scale = nn.Parameter(torch.tensor(0.05))
        if config.smear == "token":
            self.smear_w = nn.Parameter(torch.zeros(GATE_INPUTS))
            self.smear_lambda = nn.Parameter(torch.zeros(()))
        elif config.smear != "none":
            # The contest starts at g = 1/2; the mean blurs more, so it starts near the identity.
            self.smear_D = nn.Parameter(torch.full((d,), 0.0 if config.smear == "channel" else -3.0))

    def table(self) -> Tensor:
        """Return the table of token embeddings as wide as the model, fp32 [V, D]; a tied head uses it too."""
        return self.weight if self.proj is None else F.linear(self.weight, self.proj.weight)

    def forward(self, symbols_BT: Tensor, table_VD: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the embeddings [B, T, D] in ``dtype``; ``table_VD`` is ``table()``, computed once per step."""
        config = self.config
        bigram_GD: Tensor | None = None
        scale: Tensor | None = None
        if config.bigram_slots:
            scale, bigram_GD = self.bigram_scale, self.bigram_GE
            if self.bigram_proj is not None:
                bigram_GD = F.linear(bigram_GD, self.bigram_proj.weight)
        token = config.smear == "token"
        x_BTD = ops.embed(
            symbols_BT, table_VD, bigram=bigram_GD, bigram_scale=scale, smear_w=self.smear_w if token else None,
            smear_lambda=self.smear_lambda if token else None, bos=config.bos, dtype=dtype,
        )  # fmt: skip
        if config.smear in ("none", "token"):
            return x_BTD
        start_BT = document_starts(symbols_BT, config.bos)
        if config.smear == "mean":
            other_BTD = _document_means(x_BTD, start_BT)
        else:
            other_BTD = torch.where(start_BT[..., None], x_BTD, torch.roll(x_BTD, 1, 1))
        return torch.lerp(x_BTD, other_BTD, torch.sigmoid(self.smear_D).to(dtype))


class ValueEmbedding(nn.Module):
    """A table of values by token, shared by some layers: ``v_t += scale_i W E[x_t]``, W starting at zero."""

    def __init__(self, config: GPTConfig, vocab_size: int) -> None:
        super().__init__()
        self.layers, self.head_dim = config.value_layers, config.head_dim
        self.weight = nn.Parameter(torch.empty(vocab_size, config.value_embed_dim))
        self.proj: Linear | None = Linear(config.value_embed_dim, config.kv_dim)
        self.scale_L = nn.Parameter(torch.full((len(self.layers),), 0.1))

    def forward(self, symbols_BT: Tensor, dtype: torch.dtype) -> dict[int, Tensor]:
        """Return the term [B, T, K, H] that each of the layers adds to its values."""
        table_VI = self.weight if self.proj is None else F.linear(self.weight, self.proj.weight)
        values_BTI = F.embedding(symbols_BT, table_VI).to(dtype)
        values_BTKH = values_BTI.view(*symbols_BT.shape, -1, self.head_dim)
        return {i: scale.to(dtype) * values_BTKH for i, scale in zip(self.layers, self.scale_L.unbind(), strict=True)}


def document_starts(symbols_BT: Tensor, bos: int) -> Tensor:
    """Return for each token whether a document starts there: at the first token of a row and at every ``bos``."""
    first_BT = torch.zeros_like(symbols_BT, dtype=torch.bool)
    first_BT[:, :1] = True
    return first_BT | (symbols_BT == bos)


def segment_bounds(symbols_BT: Tensor, bos: int, max_segment: int) -> Tensor:
    """Return the int32 bounds of segments, over all rows end to end, from 0 to B T, as ``ops.attention`` takes them.

    A segment starts at each document, and again after ``max_segment`` tokens; 0 for no limit. Batches of training
    bring their bounds along (``Batch.bounds``): to find them here, the processor waits for the GPU.
    """
    start_N = document_starts(symbols_BT, bos).flatten()
    at_N = torch.arange(start_N.numel(), device=start_N.device)
    if max_segment:
        first_N = torch.where(start_N, at_N, 0).cummax(0).values
        start_N = (at_N - first_N) % max_segment == 0
    return torch.cat((at_N[start_N], at_N.new_full((1,), start_N.numel()))).to(torch.int32)


def _document_means(x_BTD: Tensor, start_BT: Tensor) -> Tensor:
    """Return the mean of a document's rows up to each token, in the dtype of ``x_BTD``; summed in fp32."""
    at_BT = torch.arange(x_BTD.size(1), device=x_BTD.device).expand_as(start_BT)
    first_BT = torch.where(start_BT, at_BT, 0).cummax(1).values
    sums_BTD = F.pad(x_BTD.float().cumsum(1), (0, 0, 1, 0))  # row t holds the sum of rows before t
    before_BTD = sums_BTD.gather(1, first_BT[..., None].expand_as(x_BTD))
    return ((sums_BTD[:, 1:] - before_BTD) / (at_BT - first_BT + 1)[..., None]).to(x_BTD.dtype)


def soft_cap(logits: Tensor, cap: float, kind: str, *, overwrite: bool = False) -> Tensor:
    """Return ``cap tanh(z / cap)``; ``poly`` takes tanh's Taylor polynomial of degree 5, cut off at -1 and 1.

    With ``overwrite`` the result may take the place of ``logits``, which autograd does not allow.
    """
    if kind == "tanh":
        if overwrite:
            return logits.div_(cap).tanh_().mul_(cap)
        return cap * torch.tanh(logits / cap)
    u = (logits / cap).clamp(-2, 2)
    return cap * (u * (1 - u**2 / 3 + 2 * u**4 / 15)).clamp(-1, 1)
