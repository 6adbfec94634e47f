"""Run an exported entry: train, quantize, pack and score, or score a packed file alone."""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from golfcore.artifact.model_io import StoredTensor
from golfcore.export.runtime.coding import Tensor, encode
from golfcore.export.runtime.quantize import calibrate, quantize
from golfcore.export.runtime.ranks import World
from golfcore.export.runtime.score import evaluate, recipe_of, tokens_of
from golfcore.export.runtime.train import train
from golfcore.model.gpt.model import build_gpt


def main(tree: dict[str, Any], script: str) -> None:
    """Run the script at path ``script`` of the recipe ``tree``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--eval")
    parser.add_argument("--precision", default=tree["precision"], choices=["float32", "bfloat16"])
    wish = parser.parse_args()
    tree = {**tree, "code_bytes": Path(script).stat().st_size, "precision": wish.precision}
    recipe, world, path = recipe_of(tree), World(), wish.eval
    if not path:
        path = "final_model.golf"
        _make(path, recipe, tree, world)
    evaluate(path, recipe, world, world.print)


def _make(path: str, recipe: Any, tree: dict[str, Any], world: World) -> None:
    """Train, quantize and pack a model into ``path``."""
    read = os.environ.get
    changes = {key: int(read(key.upper(), getattr(recipe.train, key))) for key in ("seed", "iterations")}
    clock_s = float(read("MAX_WALLCLOCK_SECONDS", recipe.track.train_s))
    recipe = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, **changes))
    tokens, vocab_size = tokens_of(recipe), tree["vocab_size"]
    shards = tokens.shards("train")
    reads = recipe.quant.method == "gptq" and recipe.quant.calibration == "train"
    plan_s = clock_s - min(0.25, clock_s / 12)
    model = build_gpt(recipe.model, vocab_size, recipe.train.seed).to(world.device)
    model.activation_dtype = getattr(torch, recipe.precision)
    parameters = sum(p.numel() for p in model.parameters())
    world.print(f"model_params:{parameters} world_size:{world.size} seed:{recipe.train.seed}")
    steps_s = max(plan_s - recipe.quant.reserve_s * reads, min(0.01, plan_s))
    spent_s = train(model, recipe, shards, world, steps_s)
    began = time.perf_counter()
    hessians = calibrate(
        model, recipe, shards, world,
        lambda: plan_s - spent_s - (time.perf_counter() - began) if clock_s else float("inf"),
    )  # fmt: skip
    world.print(f"calibration_time:{1000 * (time.perf_counter() - began):.0f}ms")
    if world.rank == 0:
        model.activation_dtype = torch.float32
        stretch = {"context": recipe.eval.context or recipe.train.seq_len}
        keys = ("stride", "finest_stride", "adapt")
        manifest = {
            "recipe": tree["name"], "tokenizer_sha256": tokens.sha256(),
            "eval": {**stretch, **{key: tree["eval"][key] for key in keys}, "budget_s": recipe.track.eval_s},
            "model": {"family": "gpt", "vocab_size": vocab_size, "config": dataclasses.asdict(recipe.model)},
        }  # fmt: skip

        def packed(stored: list[StoredTensor]) -> bytes:
            tensors = [part for item in stored for part in item.parts()]
            if tokens.bpe:
                tensors.append(Tensor("@tokenizer", "tokenizer", np.frombuffer(tokens.bpe, np.uint8)))
            return encode(tensors, manifest)

        cap = recipe.track.cap_bytes - recipe.code_bytes
        stored = quantize(model, recipe, shards, hessians, lambda stored: len(packed(stored)), cap)
        Path(path).write_bytes(packed(stored))
    world.sum(torch.zeros(1))  # the others wait for the file
