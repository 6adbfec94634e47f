"""Configure a GPT and count its parameters; without torch, so that planning starts fast.

Every part beyond the contest's baseline is off by default, and one field (or one block of fields) turns it on.
docs/guides/parts.md explains each part and its effect.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from golfcore.config import require
from golfcore.ranges import Factor, Layers, Part, Range, Size, SomeFactor, SomeSize, SomeWindow, Window, check_fields

if TYPE_CHECKING:
    from golfcore.model.roles import Kind

GATE_INPUTS = 12  # channels that the small gates read


def layer_set(text: str, num_layers: int, key: str) -> tuple[int, ...]:
    """Return the layers that ``text`` names: ``""`` none, ``"all"``, or numbers and spans such as ``"0,3-5"``.

    Raises:
        UsageError: no such text, or a layer beyond ``num_layers``; the message names ``key``.
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

    Every part beyond the baseline is off by default; docs/guides/parts.md says what each brings. Sets of layers are
    texts: ``""`` for none, ``"all"``, or numbers and spans such as ``"0,3-5"``.

    Attributes:
        num_layers: Number of transformer blocks with weights of their own; ``loop_layers`` may run some of them several
            times.
        model_dim: Width of the residual stream in channels; a multiple of ``num_heads``.
        num_heads: Number of query heads in each layer. The dimension of a head, ``model_dim / num_heads``, must be
            even.
        num_kv_heads: Number of key and value heads in each layer, a divisor of ``num_heads``. Fewer heads save
            parameters; each is shared by several query heads.
        mlp_mult: Hidden width of the MLP as a multiple of ``model_dim``.
        bos: Id of the token that starts each document. Smear, bigrams and packed attention do not reach back across it.
        tie_embeddings: Whether the embedding table is also the output head, which saves the parameters of a head.
        tied_embed_init_std: Standard deviation of the initial embedding table if it is also the output head; otherwise
            it is 1.
        embed_dim: Width of the embedding table if it is narrower than the model, with a projection to ``model_dim``
            behind it. 0 means a table as wide as the model and no projection.
        bigram_slots: Rows of a table that is looked up by a hash of the previous and the current token and added to the
            embedding. 0 means no such table.
        bigram_dim: Width of the bigram table if it is narrower than the model, with a projection behind it. 0 means as
            wide as the model and no projection.
        smear: How the embedding of the previous token is mixed into that of the current one. token adds it through a
            gate per token with 13 parameters; channel interpolates with one gate per channel; mean interpolates with
            the mean of the document so far; none turns it off.
        qk_gain_init: Initial value of the learned factor per head on the normalized queries. Larger values start with
            sharper attention.
        rope_base: Base of the wavelengths of rotary position embedding, above 1.
        rope_dims: Dimensions of each head that rotary position embedding rotates, an even number. 0 means all of them.
        rope_scaling: How rotary frequencies change in windows longer than ``rope_train_len``. ntk enlarges the base;
            yarn slows the slow frequencies (arXiv:2309.00071); none leaves them.
        rope_train_len: Window length in tokens above which ``rope_scaling`` changes the frequencies.
        xsa_layers: Layers with exclusive self-attention, which removes from a head's output the direction of the
            token's own value. Empty means none.
        attn_gate: Learned factor on each attention head of each token. head and sparse read 12 channels of the layer's
            input, head between 0 and 2, sparse between 0 and 1; dense reads all channels; none turns it off.
        attn_gate_scale: Factor on the input of the sigmoid of the sparse attention gate.
        value_embed_layers: Layers whose attention values get an embedding of the token added; all of them share one
            table. Empty means none.
        value_embed_dim: Width of the table of value embeddings, with a projection behind it.
        packed_documents: Whether attention stops at the start of a document, so that documents in one row do not see
            each other.
        max_segment: Tokens after which a packed document is cut into segments that do not see each other. 0 means that
            documents are never cut.
        activation: Activation of the MLP. relu2 is the squared ReLU; leaky2 squares a leaky ReLU of slope 0.5; swiglu
            gates one half of a projection twice as wide by the SiLU of the other.
        resid_mix: How a block mixes its input with the embedding at the bottom of the model, with learned factors per
            channel. learned starts with the input alone; phase starts with more of the embedding in the early layers;
            none turns it off.
        skips: Skip connections from the first half of the layers to the second, as in a U-Net. weighted adds with a
            learned weight per channel; gated interpolates with a learned gate; none turns them off.
        layer_scale: Whether each normalized input of attention and MLP is multiplied by 1 / sqrt(layer + 1).
        lanes_from: Layer from which attention and MLP read residual streams of their own, which both write to. 0 means
            one stream throughout.
        loop_layers: Span of layers that runs several times in a row with the same weights (depth recurrence), for
            example ``"3-5"``. Empty means none.
        loop_starts: Share of the run at which each additional pass of ``loop_layers`` begins, in rising order; as many
            numbers as there are additional passes. Empty if ``loop_layers`` is.
        softcap: How logits are limited to the range of ``logit_softcap``: by tanh, or by a polynomial that approximates
            it.
        logit_softcap: Bound on the magnitude of logits, above 0, which is approached smoothly.
        z_loss: Weight of the squared log-normalizer of the logits in the training loss, which keeps logits small. 0
            means none.
        init: Distribution of the matrices that do not start at zero: uniform is the default of torch.nn.Linear,
            orthogonal a random orthogonal matrix.
    """

    # --- size
    num_layers: Layers = 9
    model_dim: Annotated[int, Range(1, 2**20)] = 512
    num_heads: SomeSize = 8
    num_kv_heads: SomeSize = 4
    mlp_mult: SomeSize = 2
    bos: Size = 1

    # --- input
    tie_embeddings: bool = True
    tied_embed_init_std: Factor = 0.005
    embed_dim: Size = 0
    bigram_slots: Annotated[int, Range(0, 2**24)] = 0
    bigram_dim: Size = 0
    smear: Literal["none", "token", "channel", "mean"] = "none"

    # --- attention
    qk_gain_init: Factor = 1.5
    rope_base: Annotated[float, Range(1, 1e12, whole=False, above=True)] = 10_000.0
    rope_dims: Size = 0
    rope_scaling: Literal["none", "ntk", "yarn"] = "none"
    rope_train_len: SomeWindow = 1024
    xsa_layers: str = ""
    attn_gate: Literal["none", "head", "dense", "sparse"] = "none"
    attn_gate_scale: Factor = 1.0
    value_embed_layers: str = ""
    value_embed_dim: Size = 128
    packed_documents: bool = False
    max_segment: Window = 0

    # --- MLP
    activation: Literal["relu2", "leaky2", "swiglu"] = "relu2"

    # --- residual stream
    resid_mix: Literal["none", "learned", "phase"] = "learned"
    skips: Literal["none", "weighted", "gated"] = "weighted"
    layer_scale: bool = False
    lanes_from: Size = 0

    # --- depth recurrence
    loop_layers: str = ""
    loop_starts: tuple[Part, ...] = ()

    # --- head and loss
    softcap: Literal["tanh", "poly"] = "tanh"
    logit_softcap: SomeFactor = 30.0
    z_loss: Factor = 0.0

    init: Literal["uniform", "orthogonal"] = "uniform"

    def __post_init__(self) -> None:
        check_fields(self, "model")
        require(
            self.model_dim % self.num_heads == 0, "model.num_heads", self.num_heads,
            f"a divisor of model.model_dim = {self.model_dim}",
        )  # fmt: skip
        require(self.head_dim % 2 == 0, "model.num_heads", self.num_heads, "an even head dimension (rotary pairs)")
        require(
            self.num_heads % self.num_kv_heads == 0, "model.num_kv_heads", self.num_kv_heads,
            f"a divisor of model.num_heads = {self.num_heads}",
        )  # fmt: skip
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
    """Return the layers in the order they run, with the looped span ``1 + extra_passes`` times.

    The first half of this order feeds the skips of the second.
    """
    span = layer_set(config.loop_layers, config.num_layers, "model.loop_layers")
    layers = tuple(range(config.num_layers))
    if not span:
        return layers
    return layers[: span[0]] + span * (1 + extra_passes) + layers[span[-1] + 1 :]


def gpt_counts(config: GPTConfig, vocab_size: int) -> dict[str, tuple[Kind, int, int]]:
    """Return ``group -> (kind, parameters, rows)`` of the whole model; see ``Family.counts``."""
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
    """Count scales, gains, gates and mixes: all parameters that are neither in a matrix nor in a table."""
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
