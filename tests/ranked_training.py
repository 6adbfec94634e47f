"""A tiny training run for any number of ranks, as tests start it in processes of its own."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny import TINY, VOCAB, recipe

from golfcore.config import RecipeConfig, TrackConfig
from golfcore.data.loader import TokenLoader
from golfcore.data.shards import ShardSet, ShardWriter
from golfcore.model import get_family
from golfcore.ops import using
from golfcore.ranks.world import World
from golfcore.run_folder import CHECKPOINT, METRICS
from golfcore.training.checkpoint import load_newest
from golfcore.training.runlog import RunLog, read_metrics
from golfcore.training.trainer import Trainer

ALONE = World(rank=0, size=1, device=torch.device("cpu"))


def write_tokens(folder: Path) -> Path:
    """Tokens that are predictable from the one before."""
    noise = np.random.default_rng(0).integers(0, 3, 6000)
    with ShardWriter(folder, "train") as writer:
        writer.append(((np.cumsum(noise) * 7) % VOCAB).astype(np.uint16))
    return folder


def make_recipe(track_s: float = 0.0, optim: dict[str, Any] | None = None, **train: Any) -> RecipeConfig:
    config = recipe(**train)
    return dataclasses.replace(
        config, track=TrackConfig(train_s=track_s), optim=dataclasses.replace(config.optim, **(optim or {}))
    )


class Run:
    """A trainer on ``tokens``, its log in ``run_dir``; goes on from a checkpoint that is there."""

    def __init__(self, world: World, config: RecipeConfig, tokens: Path, run_dir: Path, *, layers: int = 3) -> None:
        train = config.train
        self.loader = TokenLoader(
            ShardSet.of_split(tokens, "train"), batch_tokens=train.batch_tokens, seq_len=train.seq_len,
            order="shuffled", seed=1, rank=world.rank, world=world.size,
        )  # fmt: skip
        saved = world.on_primary(lambda: load_newest(run_dir)[0] if (run_dir / CHECKPOINT).exists() else None)
        self.log = RunLog(run_dir, primary=world.primary, resume_step=saved["step"] if saved else None)
        module = get_family("gpt").build(dataclasses.replace(TINY, num_layers=layers), VOCAB, 1)
        self.trainer = Trainer(config, module, self.loader, world, self.log)
        if saved:
            self.trainer.resume(saved)

    def train(self) -> dict[str, torch.Tensor]:
        """The weights after the run."""
        with self.loader, self.log:
            self.trainer.warm_up()
            self.trainer.run()
            self.trainer.save(final=True)
        return {name: p.detach().clone() for name, p in self.trainer.module.named_parameters()}


def losses(run_dir: Path) -> dict[int, float]:
    return {row["step"]: row["train_loss"] for row in read_metrics(run_dir / METRICS) if row["kind"] == "train"}


def train(
    world: World, config: RecipeConfig, tokens: Path, run_dir: Path, ops: str = "native"
) -> dict[str, np.ndarray]:
    """Trains to the end with ``native`` or ``reference`` operations; the weights."""
    with using(ops):
        return {name: w.numpy() for name, w in Run(world, config, tokens, run_dir).train().items()}
