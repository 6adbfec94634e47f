"""Describe the GPT family to the registry; only ``build`` imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from golfcore.model.gpt.config import GPTConfig, gpt_counts
from golfcore.model.gpt.cost import gpt_work
from golfcore.model.registry import Family

if TYPE_CHECKING:
    from golfcore.model.interface import LanguageModel

# The operations of a forward pass, in plain torch.
_REFERENCES = ("__init__", "activation", "attention", "embed", "linear", "norm", "qk")


def _build(config: GPTConfig, vocab_size: int, seed: int) -> LanguageModel:
    from golfcore.model.gpt.decoding import CachedGPT  # no part of ``sources``: a score needs no cache
    from golfcore.model.gpt.model import build_gpt

    return build_gpt(config, vocab_size, seed, CachedGPT)


GPT_FAMILY = Family(
    name="gpt",
    config=GPTConfig,
    build=_build,
    counts=gpt_counts,
    work=gpt_work,
    sources=(
        "model/roles.py",
        *(f"model/gpt/{name}.py" for name in ("config", "parts", "blocks", "model")),
        *(f"ops/reference/{name}.py" for name in _REFERENCES),
    ),
)
