"""The GPT family's config and its arithmetic; torch-free, so that planning starts fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from golfcore.config import require

if TYPE_CHECKING:
    from golfcore.model.registry import Kind


@dataclass(frozen=True, kw_only=True, slots=True)
class GPTConfig:
    """The contest's baseline GPT; the defaults are its naive baseline's (1.2244 bits per byte on 8 x H100)."""

    num_layers: int = 9
    model_dim: int = 512
    num_heads: int = 8
    num_kv_heads: int = 4
    mlp_mult: int = 2
    tie_embeddings: bool = True
    tied_embed_init_std: float = 0.005
    rope_base: float = 10_000.0
    qk_gain_init: float = 1.5
    logit_softcap: float = 30.0

    def __post_init__(self) -> None:
        for name in ("num_layers", "model_dim", "num_heads", "num_kv_heads", "mlp_mult"):
            require(getattr(self, name) > 0, f"model.{name}", getattr(self, name), "1 or more")
        require(
            self.model_dim % self.num_heads == 0,
            "model.num_heads",
            self.num_heads,
            f"a divisor of model.model_dim = {self.model_dim}",
        )
        require(self.head_dim % 2 == 0, "model.num_heads", self.num_heads, "an even head dimension (rotary pairs)")
        require(
            self.num_heads % self.num_kv_heads == 0,
            "model.num_kv_heads",
            self.num_kv_heads,
            f"a divisor of model.num_heads = {self.num_heads}",
        )
        require(self.logit_softcap > 0, "model.logit_softcap", self.logit_softcap, "a positive number")
        require(self.rope_base > 1, "model.rope_base", self.rope_base, "above 1")

    @property
    def head_dim(self) -> int:
        return self.model_dim // self.num_heads

    @property
    def kv_dim(self) -> int:
        return self.head_dim * self.num_kv_heads


def gpt_counts(config: GPTConfig, vocab_size: int) -> dict[str, tuple[Kind, int, int]]:
    """``group -> (kind, parameters, rows)`` of the whole model; see ``Family.counts``."""
    n, d, hidden, kv = config.num_layers, config.model_dim, config.model_dim * config.mlp_mult, config.kv_dim
    counts: dict[str, tuple[Kind, int, int]] = {
        "embed": ("embedding", vocab_size * d, vocab_size),
        "q": ("matrix", n * d * d, n * d),
        "k": ("matrix", n * kv * d, n * kv),
        "v": ("matrix", n * kv * d, n * kv),
        "o": ("matrix", n * d * d, n * d),
        "up": ("matrix", n * hidden * d, n * hidden),
        "down": ("matrix", n * hidden * d, n * d),
        "control": ("vector", n * (4 * d + config.num_heads) + (n // 2) * d, 0),
    }
    if not config.tie_embeddings:
        counts["head"] = ("head", vocab_size * d, vocab_size)
    return counts
