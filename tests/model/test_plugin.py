"""A model family from outside goes through a whole run: nothing in the package knows its name."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tiny import recipe
from torch import Tensor, nn

from golfcore.data.tokens import open_tokens, prepare_data
from golfcore.model import Family, Role, register, registry
from golfcore.model.interface import Batch, Context, LanguageModel
from golfcore.model.work import Work
from golfcore.pipeline.score import score_artifact, validation_of
from golfcore.pipeline.start import Start
from golfcore.pipeline.whole import run_stages
from golfcore.ranks.world import World


@dataclass(frozen=True, kw_only=True, slots=True)
class BigramConfig:
    dropout: float = 0.5  # at the start, none at the end


class Bigram(LanguageModel):
    """Logits of the next token from the present one; drops out less as the clock runs, so it needs the context."""

    def __init__(self, config: BigramConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.table = nn.Embedding(vocab_size, vocab_size)

    def loss(self, batch: Batch, context: Context) -> tuple[Tensor, dict[str, Tensor]]:
        keep = 1 - self.config.dropout * (1 - context.progress)
        logits = self.table(batch.inputs_BT) * keep
        ce = nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets_BT.flatten())
        return ce + 1e-4 * logits.square().mean(), {"ce": ce.detach()}

    def new_state(self, rows: int) -> dict[str, Tensor]:
        return {}

    def logits(self, state: dict[str, Tensor], symbols_BT: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return self.table(symbols_BT).float(), state

    def parameter_roles(self) -> dict[str, Role]:
        return {"table.weight": Role("embedding", "table")}


def build(config: BigramConfig, vocab_size: int, seed: int) -> Bigram:
    model = Bigram(config, vocab_size)
    nn.init.normal_(model.table.weight, std=0.01, generator=torch.Generator().manual_seed(seed))
    return model


@pytest.fixture
def family(monkeypatch: pytest.MonkeyPatch) -> Iterator[Family]:
    monkeypatch.setattr(registry, "_FAMILIES", dict(registry._FAMILIES))
    family = Family(
        name="bigram",
        config=BigramConfig,
        build=build,
        counts=lambda config, vocab_size: {"table": ("embedding", vocab_size**2, vocab_size)},
        work=lambda config, vocab_size, seq_len: (Work(0.0, 0, 0, 0.0, 0, 0, vocab_size, 0),),
        sources=(),
    )
    register(family)
    yield family


def test_a_family_from_outside_is_trained_packed_and_scored(
    family: Family, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOLFCORE_CACHE", str(tmp_path / "cache"))
    config = dataclasses.replace(recipe(iterations=40), model_family="bigram", model=BigramConfig())
    config = prepare_data(config, [text_file])
    world = World(rank=0, size=1, device=torch.device("cpu"))
    tokens = open_tokens(config.data.path)

    def evaluate(artifact: Path) -> dict[str, object]:
        return score_artifact(artifact, validation_of(tokens), world, batch_tokens=1024)

    result = run_stages(Start(tmp_path / "run", config), world, evaluate)
    assert result is not None
    assert 0 < result.score["val_bpb"] < 7.5  # a uniform model over 260 ids costs 8.02 bits per byte
    assert (tmp_path / "run" / "model.golf").stat().st_size == result.summary()["bytes_total"]
