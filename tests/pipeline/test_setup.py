"""The set-up of a training: a recipe for GPUs is refused elsewhere; attention is tried on the run's own documents."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_gpu import CUDA, fake_gpu
from ranked_training import ALONE, make_recipe
from tiny import TINY, VOCAB

from golfcore.config import RecipeConfig
from golfcore.errors import UsageError
from golfcore.ops.registry import backends, leaves, on_device, using
from golfcore.pipeline import setup
from golfcore.pipeline.measure import RandomTokens
from golfcore.recipes import load_recipe, recipe_names
from golfcore.training.runlog import RunLog


def build(recipe: RecipeConfig, run_dir: Path) -> None:
    loader = RandomTokens(VOCAB, recipe.train.batch_tokens, recipe.train.seq_len)
    with RunLog(run_dir, primary=True) as log, setup.build_trainer(recipe, VOCAB, loader, ALONE, log):
        pass


def test_recipes_for_gpus_ask_for_one() -> None:
    asks = {name for name in recipe_names() if load_recipe(name, environment={}).config.train.require_gpu}
    assert asks == {name for name in recipe_names() if "h100" in name or "gpu" in name}


def test_a_recipe_for_gpus_is_refused_on_a_cpu_unless_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        build(make_recipe(require_gpu=True), tmp_path / "refused")
    text = str(caught.value)
    assert "\n" not in text
    assert "train.require_gpu = true, and this run would be on the CPU (" in text
    assert "set train.require_gpu=false" in text
    build(make_recipe(require_gpu=False), tmp_path / "asked")


def test_a_gpu_that_plain_torch_would_serve_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_gpu(monkeypatch):
        served = backends(CUDA)
        assert set(served.values()) == {"native-cuda"}
        assert set(served) == on_device() == set(leaves())
        setup._require_gpu(CUDA, served)
        with pytest.raises(UsageError, match=r"plain torch would serve norm, qk \(GOLF_OPS says so\)"):
            setup._require_gpu(CUDA, {**served, "norm": "reference", "qk": "reference"})
        with using("reference"), pytest.raises(UsageError, match=r"plain torch would serve .*attention"):
            setup._require_gpu(CUDA, backends(CUDA))


@pytest.mark.parametrize("seq_len", [16, 32])
def test_attention_is_tried_on_a_batch_of_the_run(seq_len: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[dict[str, Any]] = []

    def choose(wish: str, attention: Any, rows: int, length: int, *more: Any) -> tuple[str, str]:
        tried.append({"rows": rows, "length": length, "bounds": more[-2], "longest": more[-1]})
        return "own", ""

    monkeypatch.setattr(setup, "choose", choose)
    for model in (TINY, dataclasses.replace(TINY, packed_documents=True, max_segment=20)):
        recipe = dataclasses.replace(make_recipe(seq_len=seq_len, attention="auto"), model=model)
        module = setup.get_family("gpt").build(model, VOCAB, 0)
        loader = RandomTokens(VOCAB, 256, seq_len)
        setup._choose_attention(recipe, module, loader, {})
    whole, packed = tried
    assert (whole["bounds"], whole["longest"]) == (None, 0)
    assert packed["rows"] * packed["length"] == recipe.train.micro_batch_tokens
    bounds = packed["bounds"]
    assert bounds.dtype == torch.int32
    assert (bounds[0], bounds[-1]) == (0, recipe.train.micro_batch_tokens)
    assert len(bounds) > packed["rows"] + 1  # random tokens start documents
    assert packed["longest"] == min(20, seq_len) >= bounds.diff().max()
