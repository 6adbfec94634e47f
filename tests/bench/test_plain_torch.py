"""The rival in plain torch learns what our own training learns from the same settings: only its speed is its own."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

from tiny import recipe

from golfcore.config import OptimConfig, to_toml, to_tree

SCRIPT = Path(__file__).parent.parent.parent / "bench" / "plain_torch.py"


def test_the_rival_reaches_our_score_in_as_many_steps(text_file: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(
        recipe(iterations=16, warmdown_iters=8, precision="bf16"), optim=OptimConfig(muon_momentum_warmup_steps=8)
    )
    (tmp_path / "tiny.toml").write_text(to_toml(to_tree(config)))
    environment = {**os.environ, "GOLFCORE_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}

    def score(*command: object) -> dict[str, float]:
        done = subprocess.run(
            [sys.executable, *map(str, command), "--text", text_file, "--runs", tmp_path / "runs"],
            env=environment, capture_output=True, text=True, check=True, timeout=200,
        )  # fmt: skip
        result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return result

    ours = score("-m", "golfcore", "run", tmp_path / "tiny.toml", "--run-id", "ours")
    plain = score(SCRIPT, "--recipe", tmp_path / "tiny.toml", "--run-id", "plain")
    assert plain["steps"] == 16
    assert abs(plain["val_bpb"] - ours["val_bpb"]) < 0.02
    assert abs(plain["bytes_total"] - ours["bytes_total"]) < 500
