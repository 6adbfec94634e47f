"""Native operations train as plain torch does: their bf16 curve is as near to the fp32 one as plain torch's is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tiny import TINY, VOCAB, recipe

from golfcore.data.loader import TokenLoader
from golfcore.data.shards import ShardSet, ShardWriter
from golfcore.model import get_family
from golfcore.ops import using
from golfcore.ranks.world import World
from golfcore.run_folder import METRICS
from golfcore.training.runlog import RunLog, read_metrics
from golfcore.training.trainer import Trainer

STEPS = 200


def curve(shards: ShardSet, run_dir: Path, mode: str, dtype: torch.dtype) -> np.ndarray:
    """The losses of ``STEPS`` steps with activations in ``dtype``."""
    config = recipe(iterations=STEPS, micro_batch_tokens=256, warmup_steps=0, warmdown_iters=50)
    module = get_family("gpt").build(TINY, VOCAB, 1)
    module.activation_dtype = dtype
    loader = TokenLoader(shards, batch_tokens=config.train.batch_tokens, seq_len=config.train.seq_len)
    world = World(rank=0, size=1, device=torch.device("cpu"))
    with using(mode), loader, RunLog(run_dir, primary=True) as log:
        Trainer(config, module, loader, world, log).run()
    return np.array([row["train_loss"] for row in read_metrics(run_dir / METRICS)])


def test_the_loss_curve_is_that_of_the_reference(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 3, 60_000)
    with ShardWriter(tmp_path, "train") as writer:
        writer.append(((np.cumsum(noise) * 7) % VOCAB).astype(np.uint16))
    shards = ShardSet.of_split(tmp_path, "train")
    exact = curve(shards, tmp_path / "exact", "reference", torch.float32)
    plain = np.abs(curve(shards, tmp_path / "plain", "reference", torch.bfloat16) - exact)
    native = np.abs(curve(shards, tmp_path / "native", "native", torch.bfloat16) - exact)
    assert exact[-20:].mean() < 0.7 * exact[:5].mean()  # there is a curve to follow
    assert 0 < native.mean() <= 2 * plain.mean()
    assert native[-20:].mean() <= 2 * plain[-20:].mean()
