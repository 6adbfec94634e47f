"""A rank of a contest run on a GPU that is not there: from shards to a step of every phase, and a window read.

    WORLD_SIZE=8 RANK=7 LOCAL_RANK=7 MASTER_ADDR=x MASTER_PORT=1 python fake_step.py frontier_8xh100 FOLDER MODEL

The recipe is cut to narrow layers of the same kinds. Tensors hold no numbers: shapes, dtypes and devices are checked,
and that the processor waits for the GPU in no step.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import pytest
import torch
import torch.distributed as dist
from fake_gpu import CUDA, FakeWorld, fake_gpu, model_on_gpu

from golfcore.boxcheck.cut import cut_recipe
from golfcore.data.tokens import open_tokens
from golfcore.pipeline.setup import token_loader
from golfcore.ranks.rendezvous import Place
from golfcore.recipes import load_recipe
from golfcore.training.runlog import RunLog
from golfcore.training.trainer import Trainer


def fake_steps(name: str, folder: Path, tokenizer: Path, environment: Mapping[str, str], run_dir: Path) -> str:
    """Run the steps of the rank that ``environment`` describes; return a line on them, or raise AssertionError."""
    place = Place.from_environment(environment)
    tokens = open_tokens(str(folder), str(tokenizer))
    config = cut_recipe(load_recipe(name, environment={}).config, rows=4 * place.size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dist, "broadcast", lambda tensor, src: None)  # the word of rank 0 about the clock
        with fake_gpu(patch) as gpu:
            module = model_on_gpu(config, tokens.vocab_size)
            world = FakeWorld(rank=place.rank, size=place.size, device=CUDA)
            with token_loader(config, tokens.shards("train"), world) as loader:
                trainer = Trainer(config, module, loader, world, RunLog(run_dir, primary=False))
                trainer.state.step = 10  # the first ten are logged, which reads the loss
                phases = _every_phase(trainer, gpu)
            ids_BT = torch.zeros(3, 64, dtype=torch.int64, device=CUDA)
            with torch.no_grad():
                assert module.last_logits(ids_BT, 7).is_cuda
    return f"rank {place.rank} of {place.size}: a step of each of {phases} phases waited for nothing; a window was read"


def _every_phase(trainer: Trainer, gpu: object) -> int:
    for stage in trainer.stages:
        trainer.set_stage(stage)
        for aware in (False, True) if trainer.aware_fn is not None else (False,):
            trainer.aware = aware
            with gpu.without_waiting():  # type: ignore[attr-defined]
                loss = trainer.backward()
                trainer.update(1.0, 0.5)
            assert loss.is_cuda
    assert all(p.is_cuda for p in trainer.module.parameters())
    assert all(t.is_cuda for t in (*trainer.optimizers.averages.values(), *trainer.optimizers._state.values()))
    return len(trainer.stages)


if __name__ == "__main__":
    recipe, shards, model = sys.argv[1:]
    with tempfile.TemporaryDirectory() as place_of_run:
        print(fake_steps(recipe, Path(shards), Path(model), os.environ, Path(place_of_run)))
