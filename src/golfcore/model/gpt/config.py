"""The GPT family's config and its arithmetic; torch-free, so that planning starts fast.

Every part beyond the contest's baseline is off by default, and one field (or one block of fields) turns it on. What
each part is and what it brought is written down in docs/frontier.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from golfcore.config import require

if TYPE_CHECKING:
    from golfcore.model.roles import Kind

GATE_INPUTS = 12  # channels that the small gates read


def layer_set(text: str, num_layers: int, key: str) -> tuple[int, ...]:
    """The layers that ``text`` names: ``""`` none, ``"all"``, or numbers and spans as in ``"0,3-5"``.

    Raises:
        UsageError: not such a text, or a layer beyond ``num_layers``; names ``key``.
    """
    if text.strip() in ("", "all"):
        return tuple(range(num_layers)) if text.strip() else ()
    layers: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,6})(?:\s*-\s*(\d{1,6}))?\s*", part)
        expected = f'layers of 0 to {num_layers - 1} such as "all" or "0,3-5"'
        require(match is not None, key, text, expected)
        first, last = (int(g) for g in (match[1], match[2] or match[1]))  # type: ignore[index]
        require(first <= last < num_layers, key, text, expected)
        layers.update(range(first, last + 1))
    return tuple(sorted(layers))


@dataclass(frozen=True, kw_only=True, slots=True)
class GPTConfig:
    """A GPT; the defaults are the contest's naive baseline (1.2244 bits per byte on 8 x H100).

    Sets of layers are texts: ``""`` for none, ``"all"``, ``"0,3-5"``.
    """

    # --- size
    num_layers: int = 9
    model_dim: int = 512
    num_heads: int = 8
    num_kv_heads: int = 4
    mlp_mult: int = 2
    bos: int = 1  # the id before each document: smear, bigram and packed attention stop there

    # --- input
    tie_embeddings: bool = True
    tied_embed_init_std: float = 0.005
    embed_dim: int = 0  # factored embedding: a table this wide and a projection; 0: model_dim, no projection
    bigram_slots: int = 0  # rows of the hashed bigram table; 0: none
    bigram_dim: int = 0  # its width before a projection; 0: model_dim, no projection
    smear: Literal["none", "token", "channel", "mean"] = "none"  # how the token before joins: see parts.InputEmbedding

    # --- attention
    qk_gain_init: float = 1.5
    rope_base: float = 10_000.0
    rope_dims: int = 0  # dimensions of a head that are rotated; 0: all
    rope_scaling: Literal["none", "ntk", "yarn"] = "none"  # of windows longer than rope_train_len
    rope_train_len: int = 1024
    xsa_layers: str = ""  # exclusive self-attention
    attn_gate: Literal["none", "head", "dense", "sparse"] = "none"
    attn_gate_scale: float = 1.0  # inside the sigmoid of the sparse gate
    value_embed_layers: str = ""
    value_embed_dim: int = 128
    packed_documents: bool = False  # no attention across document starts
    max_segment: int = 0  # packed documents are cut after so many tokens; 0: never

    # --- MLP
    activation: Literal["relu2", "leaky2", "swiglu"] = "relu2"

    # --- residual stream
    resid_mix: Literal["none", "learned", "phase"] = "learned"  # what a block adds of x0; the names are its start
    skips: Literal["none", "weighted", "gated"] = "weighted"  # U-Net: first half to second half
    layer_scale: bool = False  # each normed input times 1 / sqrt(layer + 1)
    lanes_from: int = 0  # parallel residuals: from this layer on attention and MLP keep a stream each; 0: none

    # --- depth recurrence
    loop_layers: str = ""  # a span of layers that is run again
    loop_starts: tuple[float, ...] = ()  # share of the run from which each further pass takes part

    # --- head and loss
    softcap: Literal["tanh", "poly"] = "tanh"
    logit_softcap: float = 30.0
    z_loss: float = 0.0  # weight of the squared log-normaliser

    init: Literal["uniform", "orthogonal"] = "uniform"  # of the matrices that do not start at zero

    def __post_init__(self) -> None:
        for name in ("num_layers", "model_dim", "num_heads", "num_kv_heads", "mlp_mult", "rope_train_len"):
            require(getattr(self, name) > 0, f"model.{name}", getattr(self, name), "1 or more")
        for name in ("bos", "embed_dim", "bigram_dim", "max_segment", "lanes_from", "z_loss"):
            require(getattr(self, name) >= 0, f"model.{name}", getattr(self, name), "0 or more")
        require(
            self.model_dim % self.num_heads == 0, "model.num_heads", self.num_heads,
            f"a divisor of model.model_dim = {self.model_dim}",
        )  # fmt: skip
        require(self.head_dim % 2 == 0, "model.num_heads", self.num_heads, "an even head dimension (rotary pairs)")
        require(
            self.num_heads % self.num_kv_heads == 0, "model.num_kv_heads", self.num_kv_heads,
            f"a divisor of model.num_heads = {self.num_heads}",
        )  # fmt: skip
        require(self.logit_softcap > 0, "model.logit_softcap", self.logit_softcap, "a positive number")
        require(self.rope_base > 1, "model.rope_base", self.rope_base, "above 1")
        self._check_parts()
        self._check_loops()

    def _check_parts(self) -> None:
        require(
            0 <= self.rope_dims <= self.head_dim and self.rope_dims % 2 == 0, "model.rope_dims", self.rope_dims,
            f"an even number up to the head dimension {self.head_dim}",
        )  # fmt: skip
        require(
            self.rope_scaling == "none" or self.rotary_dims > 2, "model.rope_dims", self.rotary_dims,
            f"4 or more, which model.rope_scaling = {self.rope_scaling} needs",
        )  # fmt: skip
        require(
            self.bigram_slots == 0 or self.bigram_slots >= 2, "model.bigram_slots", self.bigram_slots, "0, or 2 or more"
        )
        require(
            self.bigram_dim == 0 or self.bigram_slots > 0, "model.bigram_dim", self.bigram_dim,
            "0 without model.bigram_slots: set both",
        )  # fmt: skip
        small = self.attn_gate in ("head", "sparse") or self.smear == "token"
        require(
            not small or self.model_dim >= GATE_INPUTS, "model.model_dim", self.model_dim,
            f"{GATE_INPUTS} or more, which model.attn_gate and model.smear read",
        )  # fmt: skip
        require(
            not self.value_layers or self.value_embed_dim > 0, "model.value_embed_dim", self.value_embed_dim,
            "1 or more with model.value_embed_layers",
        )  # fmt: skip
        layer_set(self.xsa_layers, self.num_layers, "model.xsa_layers")
        require(
            self.max_segment == 0 or self.packed_documents, "model.max_segment", self.max_segment,
            "0 without model.packed_documents: set both",
        )  # fmt: skip
        require(
            self.lanes_from < self.num_layers, "model.lanes_from", self.lanes_from,
            f"0 for none, or a layer of 1 to {self.num_layers - 1}",
        )  # fmt: skip

    def _check_loops(self) -> None:
        span = layer_set(self.loop_layers, self.num_layers, "model.loop_layers")
        require(
            not span or span == tuple(range(span[0], span[-1] + 1)), "model.loop_layers", self.loop_layers,
            "one span of layers",
        )  # fmt: skip
        require(
            bool(span) == bool(self.loop_starts), "model.loop_starts", self.loop_starts,
            "a share of the run for each further pass with model.loop_layers, none without",
        )  # fmt: skip
        for start in self.loop_starts:
            require(0 <= start < 1, "model.loop_starts", self.loop_starts, "shares of the run, 0 <= x < 1")
        require(
            list(self.loop_starts) == sorted(self.loop_starts), "model.loop_starts", self.loop_starts, "rising shares"
        )
        half = (self.num_layers + len(span) * len(self.loop_starts)) // 2
        require(
            not self.lanes_from or all(i < self.lanes_from for i in layer_order(self, len(self.loop_starts))[:half]),
            "model.lanes_from", self.lanes_from, "a layer behind the first half, whose outputs the U-Net skips carry",
        )  # fmt: skip

    @property
    def head_dim(self) -> int:
        return self.model_dim // self.num_heads

    @property
    def kv_dim(self) -> int:
        return self.head_dim * self.num_kv_heads

    @property
    def rotary_dims(self) -> int:
        return self.rope_dims or self.head_dim

    @property
    def value_layers(self) -> tuple[int, ...]:
        return layer_set(self.value_embed_layers, self.num_layers, "model.value_embed_layers")

    @property
    def skip_rows(self) -> int:
        """U-Net skips of the deepest order of layers."""
        return 0 if self.skips == "none" else len(layer_order(self, len(self.loop_starts))) // 2


def layer_order(config: GPTConfig, extra_passes: int) -> tuple[int, ...]:
    """The layers in the order they run, the loop's span ``1 + extra_passes`` times; the first half feeds the skips."""
    span = layer_set(config.loop_layers, config.num_layers, "model.loop_layers")
    layers = tuple(range(config.num_layers))
    if not span:
        return layers
    return layers[: span[0]] + span * (1 + extra_passes) + layers[span[-1] + 1 :]


def gpt_counts(config: GPTConfig, vocab_size: int) -> dict[str, tuple[Kind, int, int]]:
    """``group -> (kind, parameters, rows)`` of the whole model; see ``Family.counts``."""
    n, d, kv = config.num_layers, config.model_dim, config.kv_dim
    hidden = d * config.mlp_mult
    up = hidden * (2 if config.activation == "swiglu" else 1)
    wide = config.embed_dim or d
    counts: dict[str, tuple[Kind, int, int]] = {
        "embed": ("embedding", vocab_size * wide, vocab_size),
        "q": ("matrix", n * d * d, n * d),
        "k": ("matrix", n * kv * d, n * kv),
        "v": ("matrix", n * kv * d, n * kv),
        "o": ("matrix", n * d * d, n * d),
        "up": ("matrix", n * up * d, n * up),
        "down": ("matrix", n * hidden * d, n * d),
    }
    projections = [config.embed_dim, config.bigram_dim if config.bigram_slots else 0]
    sizes = [(d, e) for e in projections if e]
    if config.bigram_slots:
        counts["bigram"] = ("embedding", config.bigram_slots * (config.bigram_dim or d), config.bigram_slots)
    if config.value_layers:
        counts["value_embed"] = ("embedding", vocab_size * config.value_embed_dim, vocab_size)
        sizes.append((kv, config.value_embed_dim))
    if sizes:
        counts["proj"] = ("matrix", sum(o * i for o, i in sizes), sum(o for o, _ in sizes))
    counts["control"] = ("vector", _control_parameters(config), 0)
    if not config.tie_embeddings:
        counts["head"] = ("head", vocab_size * d, vocab_size)
    return counts


def _control_parameters(config: GPTConfig) -> int:
    """Scales, gains, gates and mixes: everything that is neither matrix nor table."""
    n, d = config.num_layers, config.model_dim
    gate = {"none": 0, "head": GATE_INPUTS, "sparse": GATE_INPUTS, "dense": d}[config.attn_gate]
    block = (2 if config.resid_mix == "none" else 4) * d + config.num_heads * (1 + gate)
    smear = {"none": 0, "token": GATE_INPUTS + 1, "channel": d, "mean": d}[config.smear]
    return (
        n * block
        + config.skip_rows * d * (2 if config.skips == "gated" else 1)
        + (6 * n if config.lanes_from else 0)
        + smear
        + (1 if config.bigram_slots else 0)
        + len(config.value_layers)
    )
