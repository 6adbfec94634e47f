"""Small models, texts and recipes that several tests share."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch

from golfcore.artifact.model_io import save_model
from golfcore.config import DataConfig, OptimConfig, RecipeConfig, TrackConfig, TrainConfig
from golfcore.evaluate.scorer import ScoredText
from golfcore.model import get_family
from golfcore.model.gpt.config import GPTConfig
from golfcore.model.gpt.model import GPT
from golfcore.quant import quantize_state
from golfcore.tokenizer import Tokenizer

TINY = GPTConfig(num_layers=3, model_dim=32, num_heads=4, num_kv_heads=2, mlp_mult=2)
VOCAB = 64


def recipe(**train: object) -> RecipeConfig:
    """A recipe that trains ``TINY`` for a few steps without a clock; keywords replace keys of ``[train]``."""
    base = TrainConfig(
        iterations=6, batch_tokens=256, micro_batch_tokens=128, seq_len=32, warmup_steps=1, warmdown_iters=3,
        log_every=1, precision="fp32",
        attention="own",
    )  # fmt: skip
    return RecipeConfig(
        name="tiny",
        track=TrackConfig(train_s=0.0),
        data=DataConfig(vocab_size=260),
        model=TINY,
        optim=OptimConfig(muon_momentum_warmup_steps=4),
        train=dataclasses.replace(base, **train),  # type: ignore[arg-type]
    )


def scrambled(config: GPTConfig, vocab_size: int = VOCAB, noise: float = 0.3) -> GPT:
    """A model whose every parameter counts: the zero-initialized ones would hide mistakes."""
    model = get_family("gpt").build(config, vocab_size, 0)
    assert isinstance(model, GPT)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(noise * torch.randn(parameter.shape, generator=generator))
    return model


def random_text(n: int, seed: int = 0) -> ScoredText:
    """``n`` random tokens below ``VOCAB``, one to three bytes each."""
    rng = np.random.default_rng(seed)
    token_bytes = rng.integers(1, 4, n)
    return ScoredText(
        tokens=rng.integers(0, VOCAB, n).astype(np.uint16),
        token_bytes=token_bytes,
        total_bytes=int(token_bytes[1:].sum()),
        sha256="",
    )


def packed(path: Path, **evaluation: object) -> Path:
    """Packs an untrained ``TINY`` over bytes, with its tokenizer; keywords are the artifact's ``[eval]``."""
    model, tokenizer = scrambled(TINY, 260), Tokenizer()
    stored = quantize_state(model.state_dict(), model.parameter_roles(), recipe().quant, None)
    manifest = {"eval": {"context": 32, **evaluation}, "tokenizer_sha256": tokenizer.sha256}
    save_model(path, get_family("gpt"), TINY, 260, stored, tokenizer.to_bytes(), manifest)
    return path
