"""Add a model family of your own and take it through a whole run: trained, quantized, packed and scored.

    python examples/own_family.py TEXT

The family here is a table of bigrams. Trainer, quantizer, packer and scorer reach it through its ``Family`` alone.
"""

import sys
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import golfcore
from golfcore.config import RecipeConfig, TrackConfig, TrainConfig
from golfcore.model import Family, Role, register
from golfcore.model.interface import Batch, Context, LanguageModel
from golfcore.model.work import Work


@dataclass(frozen=True, kw_only=True, slots=True)
class BigramConfig:
    """The keys of a recipe's [model] section.

    Attributes:
        init_std: standard deviation of the first logits.
    """

    init_std: float = 0.01


class Bigram(LanguageModel):
    """Logits of the next token from the present one alone."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.table = nn.Embedding(vocab_size, vocab_size)

    def loss(self, batch: Batch, context: Context) -> tuple[Tensor, dict[str, Tensor]]:
        logits_BTV = self.table(batch.inputs_BT)
        ce = nn.functional.cross_entropy(logits_BTV.flatten(0, 1), batch.targets_BT.flatten())
        return ce, {"ce": ce.detach()}

    def new_state(self, rows: int) -> dict[str, Tensor]:
        return {}  # nothing is carried from one piece of a text to the next

    def logits(self, state: dict[str, Tensor], symbols_BT: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return self.table(symbols_BT).float(), state

    def parameter_roles(self) -> dict[str, Role]:
        return {"table.weight": Role("embedding", "table")}


def build(config: BigramConfig, vocab_size: int, seed: int) -> Bigram:
    model = Bigram(vocab_size)
    nn.init.normal_(model.table.weight, std=config.init_std, generator=torch.Generator().manual_seed(seed))
    return model


def work(config: BigramConfig, vocab_size: int, seq_len: int) -> tuple[Work, ...]:
    """Return what a token costs: a table that is looked up multiplies nothing."""
    return (Work(start=0.0, blocks=0, head=0, attention=0.0, residual=0, inside=0, vocab=vocab_size, passes=0),)


register(
    Family(
        name="bigram",
        config=BigramConfig,
        build=build,
        counts=lambda config, vocab_size: {"table": ("embedding", vocab_size**2, vocab_size)},
        work=work,
        sources=(),  # files of the package that belong to the model's code; ours is not part of it
    )
)

recipe = RecipeConfig(
    name="bigram",
    track=TrackConfig(train_s=5.0, cap_bytes=200_000),
    data=golfcore.load_recipe("pocket", {"data.vocab_size": 320}).data,
    model_family="bigram",
    model=BigramConfig(),
    train=TrainConfig(batch_tokens=4096, micro_batch_tokens=4096, seq_len=256, warmup_steps=1, log_every=100),
)
# The score is read by a new process, which has to know the family too; here it is read by this one.
folder = golfcore.train(recipe, text=[sys.argv[1]])
golfcore.quantize(folder)
golfcore.pack(folder)
score = golfcore.score(folder / "model.golf", text=[sys.argv[1]])
print(f"{score['val_bpb']:.4f} bits per byte of the text it was trained on; 8 without a model")
