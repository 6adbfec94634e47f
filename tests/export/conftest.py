"""Small finished runs, one per structure of a recipe, and a Python in which golfcore cannot be imported."""

from collections.abc import Callable
from pathlib import Path

import pytest

import golfcore

SMALL = {
    "model.num_layers": 3, "model.model_dim": 32, "model.num_heads": 2, "model.num_kv_heads": 1,
    "data.vocab_size": 300, "data.val_fraction": 0.2, "train.batch_tokens": 256, "train.micro_batch_tokens": 256,
    "train.seq_len": 32, "train.iterations": 6, "train.warmup_steps": 1, "train.log_every": 1, "track.train_s": 0.0,
    "train.precision": "fp32", "train.compile": False, "train.require_gpu": False, "quant.calibration_tokens": 512,
    "quant.fit": False, "eval.stride": 16, "eval.context": 32, "quant.reserve_s": 0.0, "data.path": "",
    "data.tokenizer": "",
}  # fmt: skip


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, text_file: Path) -> Callable[..., Path]:
    """Return a function that runs a recipe cut small, once, and returns the folder of its run."""
    done: dict[str, Path] = {}

    def run(recipe: str, **changes: object) -> Path:
        key = repr((recipe, sorted(changes.items())))
        if key not in done:
            sets = {**SMALL, **{name.replace("__", "."): value for name, value in changes.items()}}
            result = golfcore.run(recipe, text=text_file, changes=sets, runs=tmp_path_factory.mktemp("runs"))
            assert result is not None
            done[key] = result.run_dir
        return done[key]

    return run
