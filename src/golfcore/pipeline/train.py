"""The training stage: train a recipe, and load the checkpoint or the weights that it leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from golfcore.config import RecipeConfig, to_tree
from golfcore.data.hints import how_to_prepare
from golfcore.data.tokens import Tokens, require_same
from golfcore.errors import FormatError
from golfcore.evaluate.text import validation_text
from golfcore.machine import peak_resident_bytes, source_sha256
from golfcore.model import get_family
from golfcore.model.interface import LanguageModel
from golfcore.pipeline.quantize import hessian_times
from golfcore.pipeline.score import score_text
from golfcore.pipeline.setup import build_trainer, token_loader
from golfcore.ranks.world import World
from golfcore.run_folder import CHECKPOINT, CONFIG
from golfcore.training.checkpoint import load_newest
from golfcore.training.runlog import RunLog, peak_memory


def train_stage(
    recipe: RecipeConfig,
    tokens: Tokens,
    world: World,
    log: RunLog,
    *,
    resume: dict[str, Any] | None = None,
    on_progress: Callable[[float, str], None] | None = None,
) -> LanguageModel:
    """Train a recipe, write its last checkpoint, and return the module with the weights to keep."""
    evaluate = _in_training_score(recipe, tokens, world) if recipe.train.val_every else None
    with (
        token_loader(recipe, tokens.shards("train"), world) as loader,
        build_trainer(
            recipe, tokens.vocab_size, loader, world, log, resume=resume, on_progress=on_progress, evaluate=evaluate
        ) as trainer,
    ):
        with log.phase("warm-up"):
            if recipe.track.train_s and recipe.quant.reads_training_text:
                trainer.keep_free(_hessians_s(trainer.module, recipe, world))
            trainer.warm_up()
        with log.phase("train", recipe.track.train_s or None) as phase:
            phase.seconds = trainer.run().train_s
        trainer.save(final=True)
    log.line(_peak_memory(world))
    return trainer.module


def _hessians_s(module: LanguageModel, recipe: RecipeConfig, world: World) -> float:
    """Return the seconds to keep free for Hessians: one pass in the model's last phase, where they are collected."""
    phase, module.phase = module.phase, len(module.phase_starts())
    try:
        return 1.5 * hessian_times(module, recipe, world).least_s  # a last step may end late and yet leave a pass
    finally:
        module.phase = phase


def resume_point(run_dir: Path, recipe: RecipeConfig, world: World) -> tuple[dict[str, Any], str]:
    """Load the checkpoint to go on from, on rank 0 for all ranks; also return a note if it is not the newest.

    Raises:
        InputError: there is no checkpoint, or it was trained on other data than the recipe's.
    """

    def load() -> tuple[dict[str, Any], str]:
        saved, note = load_newest(run_dir)
        _require_its_data(recipe, saved)
        return saved, note

    return world.on_primary(load)


def _require_its_data(recipe: RecipeConfig, saved: Mapping[str, Any]) -> None:
    data = recipe.data
    then = f"it is not the data of the checkpoint; {how_to_prepare(Path(data.path), data)}"
    require_same(data.identity(), saved.get("data", {}), data.path, then)


def require_alike(recipe: RecipeConfig, tokens: Tokens, world: World) -> None:
    """Raise RankError on every rank unless all have the same recipe, data and code; paths may differ."""
    if world.size == 1:
        return
    facts: dict[str, object] = {
        f"{section}.{key}": value
        for section, table in to_tree(recipe).items()
        for key, value in (table.items() if isinstance(table, dict) else [("", table)])
        if (section, key) not in (("data", "path"), ("data", "tokenizer"), ("data", "text"))
    }
    world.require_alike(
        facts | {"the data's hash": tokens.fingerprint(), "the code's hash": source_sha256()}
    )  # fmt: skip


def _in_training_score(
    recipe: RecipeConfig, tokens: Tokens, world: World
) -> Callable[[LanguageModel], tuple[float, float]]:
    text = validation_text(tokens, recipe.train.seq_len)

    def evaluate(module: LanguageModel) -> tuple[float, float]:
        result = score_text(module, text, recipe, world)
        return result.val_loss, result.val_bpb

    return evaluate


def _peak_memory(world: World) -> str:
    if world.device.type == "cuda":
        return peak_memory(torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved())
    peak = peak_resident_bytes()
    return peak_memory(peak, peak)


def load_weights(
    run_dir: Path, recipe: RecipeConfig, vocab_size: int, saved: dict[str, Any] | None = None
) -> LanguageModel:
    """Load the module of a run's checkpoint; ``saved`` is its content if the caller has read it already."""
    module = get_family(recipe.model_family).build(recipe.model, vocab_size, recipe.train.seed)
    saved = load_newest(run_dir)[0] if saved is None else saved
    _require_its_data(recipe, saved)
    try:
        module.load_state_dict(saved["weights"])
    except (KeyError, RuntimeError) as error:
        raise FormatError(
            f"{run_dir / CHECKPOINT} holds another model than {run_dir / CONFIG} describes: "
            f"{str(error).splitlines()[0]}"
        ) from error
    return module
