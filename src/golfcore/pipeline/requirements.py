"""Check in the first second of a command what its last stage will need: text, tokens, packages, and room on the disk.

Nothing here takes long, and nothing is left behind. Whatever is wrong ends the command before its clock begins.
"""

from __future__ import annotations

import contextlib
import importlib.util
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from golfcore.config import RecipeConfig
from golfcore.data.manifest import VAL_TEXT
from golfcore.data.prepare import load_prepared
from golfcore.data.shards import check_ids
from golfcore.data.tokens import Tokens
from golfcore.disk import check_room, check_writable
from golfcore.errors import BuildError, FormatError, InputError, MachineError, UsageError
from golfcore.model import get_family
from golfcore.paths import sha256_file
from golfcore.pipeline.setup import require_memory
from golfcore.quant import predict_bytes
from golfcore.ranks.world import World
from golfcore.run_folder import ARTIFACT, CHECKPOINT, PREVIOUS_CHECKPOINT, QUANTIZED

REPORT_PACKAGES = ("matplotlib", "jinja2")  # what the last stage of a run imports
LOOKED_AT = 1 << 16  # tokens of a split whose ids are checked


def check_place(runs: Path) -> None:
    """Check that a run's folder can be made below ``runs``, which need not exist.

    Raises:
        MachineError: it cannot be written.
    """
    check_writable(existing(runs))


def check_run(
    run_dir: Path, recipe: RecipeConfig, tokens: Tokens, world: World, *, trained: bool = False, whole: bool = True
) -> None:  # fmt: skip
    """Check all that training will need and, with ``whole``, what quantizing, packing, scoring and the report will.

    Args:
        run_dir: the run's folder, which is made if it does not exist.
        recipe: the resolved recipe.
        tokens: the run's tokens.
        world: the ranks.
        trained: whether the training of the run has ended.
        whole: whether all stages follow, or training alone.

    Raises:
        InputError, FormatError: tokens or text that a stage could not use, or a model that memory cannot hold.
        UsageError: settings that contradict each other.
        MachineError: a folder that cannot be written, or a disk that is clearly too small.
        BuildError: a package is missing.
    """
    _check_split(tokens, "train", recipe.train.seq_len + 1)
    if whole or recipe.train.val_every:
        check_scoring(tokens, recipe)
    if whole:
        require_packages(*REPORT_PACKAGES)
    if not trained and world.device.type == "cpu":
        require_memory(recipe, tokens.vocab_size, world.size)
    check_writable(run_dir)
    needed = 0 if trained else checkpoints_to_write(run_dir, recipe, tokens.vocab_size)
    needed += files_to_write(run_dir, recipe, tokens.vocab_size) if whole else 0
    check_room(run_dir, needed)


def check_quantizing(run_dir: Path, recipe: RecipeConfig, tokens: Tokens, *, text: bool, dry_run: bool) -> None:
    """Check what ``golfcore quantize`` needs: calibration tokens, and a folder with room; raises as ``check_run``."""
    if text:
        _check_split(tokens, "val", 1)  # calibration text is compared with it
    elif recipe.quant.calibration == "train":
        _check_split(tokens, "train", recipe.train.seq_len)
    if not dry_run:
        check_writable(run_dir)
        check_room(run_dir, files_to_write(run_dir, recipe, tokens.vocab_size))


def check_scoring(tokens: Tokens, recipe: RecipeConfig) -> None:
    """Check that the validation split can be scored in the recipe's windows.

    Raises:
        InputError, FormatError: it is missing, damaged, or too short.
        UsageError: a stride above the context.
    """
    context = recipe.eval.context or recipe.train.seq_len
    if recipe.eval.stride != "auto" and recipe.eval.stride > context:
        raise UsageError(
            f"eval.stride = {recipe.eval.stride}: expected at most the context of {context} tokens "
            "(eval.context, or train.seq_len where that is 0)"
        )
    check_validation(tokens)
    if tokens.prepared:
        return
    _check_split(tokens, "val", context + 1)  # contest shards are cut to whole windows
    if tokens.vocab_size != recipe.data.vocab_size:
        raise InputError(
            f"{recipe.data.tokenizer} has {tokens.vocab_size} ids, data.vocab_size (VOCAB_SIZE) says "
            f"{recipe.data.vocab_size}: set it to {tokens.vocab_size}, or name another tokenizer"
        )


def check_validation(tokens: Tokens) -> None:
    """Check that ``golfcore eval`` finds the validation split; the model's windows are not known yet.

    Raises:
        InputError, FormatError: it is missing or damaged.
    """
    _check_split(tokens, "val", 2)
    if tokens.prepared:
        _check_text(tokens.folder)


def _check_split(tokens: Tokens, split: str, least: int) -> None:
    """Check that a split is there, long enough, and that its first and last tokens are in the vocabulary."""
    shards = tokens.shards(split)
    name = {"train": "training", "val": "validation"}[split]
    if len(shards) < least:
        raise InputError(
            f"{tokens.folder}: {len(shards):,} {name} tokens, expected at least one window, {least:,}; prepare more "
            "text, or lower train.seq_len and eval.context"
        )
    with _reading(tokens.folder):
        for ids in (shards[:LOOKED_AT], shards[max(0, len(shards) - LOOKED_AT) :]):
            check_ids(np.asarray(ids), tokens.vocab_size, f"{tokens.folder}: the {name} split")


def _check_text(folder: Path) -> None:
    """Check the validation text by its hash."""
    prepared = load_prepared(folder)
    with _reading(folder):
        if sha256_file(folder / VAL_TEXT) != prepared.manifest.val_text_sha256:
            raise FormatError(f"{folder / VAL_TEXT}: damaged, its hash is not the manifest's; prepare the data again")


@contextlib.contextmanager
def _reading(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror or error})") from error


def require_packages(*names: str) -> None:
    """Raise BuildError for the first package that is not installed; none is imported."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise BuildError(f"the package {name} is missing: pip install {name}")


# --- the disk ---------------------------------------------------------------------------------------------------------


def checkpoint_bytes(recipe: RecipeConfig, vocab_size: int) -> int:
    """Return the bytes of a checkpoint: weights, one moment of each matrix, two of the rest, and the average; fp32."""
    averaged = bool(recipe.train.ema_decay or recipe.train.swa_start)
    counts = get_family(recipe.model_family).counts(recipe.model, vocab_size).values()
    return 4 * sum(parameters * (2 + (kind != "matrix") + averaged) for kind, parameters, _ in counts)


def checkpoints_to_write(run_dir: Path, recipe: RecipeConfig, vocab_size: int) -> int:
    """Return the least bytes that checkpoints will add to a run's folder.

    The newest, the one before it and the one that is being written stand side by side, if there are checkpoints before
    the last.

    Raises:
        MachineError: a limit of this process is below one checkpoint.
    """
    every_s, clock_s = recipe.train.checkpoint_every_s, recipe.track.train_s
    count = 3 if every_s and (not clock_s or 2 * every_s < clock_s) else 1
    size, limit = checkpoint_bytes(recipe, vocab_size), resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit != resource.RLIM_INFINITY and limit < size:
        raise MachineError(
            f"cannot write {run_dir / CHECKPOINT}: a checkpoint takes {size:,} bytes, and this process may write files "
            f"of {limit:,}; raise the limit (ulimit -f)"
        )
    return max(0, count * size - sum(_size(run_dir / name) for name in (CHECKPOINT, PREVIOUS_CHECKPOINT)))


def files_to_write(run_dir: Path, recipe: RecipeConfig, vocab_size: int) -> int:
    """Return a lower bound on the bytes that ``quantised.pt`` and the packed file will add to the run's folder.

    ``quantised.pt`` takes at least a byte per weight, and the packed file at least half of its predicted size.
    """
    family = get_family(recipe.model_family)
    quantized = sum(parameters for _, parameters, _ in family.counts(recipe.model, vocab_size).values())
    packed = predict_bytes(family, recipe.model, vocab_size, recipe.quant) // 2
    return max(0, quantized - _size(run_dir / QUANTIZED)) + max(0, packed - _size(run_dir / ARTIFACT))


def existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
