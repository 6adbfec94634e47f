"""A whole run folder, written as a run writes it, with a stand-in for the artifact inspector."""

import dataclasses
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_run import INSPECTED, TOTAL, write_score

from golfcore.config import RecipeConfig, TrackConfig, to_toml, to_tree
from golfcore.training import runlog


@pytest.fixture
def inspector(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What the inspector answers about any file; change it to change the answer."""
    answer = json.loads(json.dumps(INSPECTED))
    module = types.ModuleType("golfcore.artifact.inspect")
    module.summary = lambda path: answer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    yield answer


@pytest.fixture
def run_dir(tmp_path: Path, inspector: dict[str, Any]) -> Path:
    """A run that was trained, packed and scored."""
    run = tmp_path / "runs" / "q1"
    recipe = RecipeConfig(name="pocket-gpt", model={}, track=TrackConfig(train_s=120.0))
    recipe = dataclasses.replace(recipe, optim=dataclasses.replace(recipe.optim, matrix_lr=0.0321))
    with runlog.RunLog(run, primary=True) as log:
        (run / "config.toml").write_text(to_toml(to_tree(recipe)))
        with log.phase("warm-up") as phase:
            phase.seconds = 6.5
        with log.phase("train", 120.0) as phase:
            for step in range(1, 241):
                loss, clock = 2.0 + 5.0 / step, step / 2
                log.train(step, 999, loss=loss, train_s=clock, tokens=64 * step, lr_mult=1.0, step_ms=500.0)
                if step % 40 == 0:
                    log.val(step, 999, loss=loss, bpb=loss / 1.7, train_s=clock)
            phase.seconds = 119.5
        log.line(runlog.stopping_early(240, 999, 119_500))
        log.line(runlog.peak_memory(800 * 2**20, 900 * 2**20))
        with log.phase("evaluate", 120.0) as phase:
            phase.seconds = 41.25
    (run / "model.golf").write_bytes(bytes(TOTAL))
    write_score(run)
    return run
