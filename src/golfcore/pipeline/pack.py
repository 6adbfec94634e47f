"""The packing stage: write quantized weights, code and tokenizer into one file."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from golfcore.artifact.inspect import summary
from golfcore.artifact.model_io import StoredTensor, save_model
from golfcore.config import RecipeConfig
from golfcore.data.tokens import Tokens, require_same
from golfcore.errors import FormatError, InputError
from golfcore.hints import command
from golfcore.model import Family, get_family
from golfcore.progress import Tick, silent
from golfcore.run_folder import QUANTIZED
from golfcore.tokenizer import Tokenizer
from golfcore.training.checkpoint import load_tensors
from golfcore.training.next_step import next_step

QUANTIZED_VERSION = 2  # of quantised.pt
_STORED = (torch.int8, torch.uint8, torch.float16)


def pack_stage(run_dir: Path, recipe: RecipeConfig, tokens: Tokens, out: Path, tick: Tick = silent) -> dict[str, Any]:
    """Pack ``quantised.pt`` into ``out`` with the coder ``quant.coder``, and return where its bytes went.

    Raises:
        InputError: the run was not quantized yet, or on other data.
    """
    path = run_dir / QUANTIZED
    if not path.is_file():
        raise InputError(f"{path} is missing; {next_step(run_dir)}")
    stored, data = read_quantized(path)
    require_same(recipe.data.identity(), data, recipe.data.path, _again(path))
    save_model(out, *packing(recipe, tokens, stored), coder=recipe.quant.coder, tick=tick)
    return summary(out, recipe.track.cap_bytes)


def read_quantized(path: Path) -> tuple[list[StoredTensor], dict[str, str]]:
    """Read a ``quantised.pt``: the tensors of the model, and the hashes of the data that it was quantized on.

    Raises:
        InputError: it cannot be read.
        FormatError: it is damaged, or of another version.
    """
    try:
        saved = load_tensors(path, QUANTIZED_VERSION)
    except FormatError as error:
        raise FormatError(f"{error}; {_again(path)}") from error
    with contextlib.suppress(LookupError, TypeError, ValueError, RecursionError):
        stored, data = [StoredTensor.from_tuple(item) for item in saved["tensors"]], dict(saved.get("data", {}))
        if all(map(_is_sound, stored)) and all(isinstance(text, str) for text in (*data, *data.values())):
            return stored, data
    raise FormatError(f"{path} does not hold the tensors of a model; {_again(path)}")


def _again(path: Path) -> str:
    return f"quantize the run again: {command('quantize', path.parent)}"


def _is_sound(item: StoredTensor) -> bool:
    """Say whether every field is of its type: a file may hold anything."""
    plain = all(
        isinstance(part, Tensor) and part.dtype in _STORED and part.layout == torch.strided and not part.requires_grad
        for part in (item.values, *(part for part in (item.scale, item.column_I) if part is not None))
    )
    numbers = type(item.bits) is int and type(item.trellis) is int
    names = isinstance(item.name, str) and isinstance(item.group, str)
    return plain and numbers and names and all(map(_is_sound, item.low_rank or ()))


def packing(
    recipe: RecipeConfig, tokens: Tokens, stored: Sequence[StoredTensor]
) -> tuple[Family, Any, int, Sequence[StoredTensor], bytes, dict[str, Any]]:
    """Collect the arguments of ``model_tensors`` and ``save_model`` for a run's weights."""
    # The contest does not count its tokenizer; where it is ours, it is part of the file and is counted.
    own = tokens.tokenizer.to_bytes() if isinstance(tokens.tokenizer, Tokenizer) else b""
    manifest = {
        "recipe": recipe.name,
        "tokenizer_sha256": tokens.tokenizer_sha256,
        "eval": {
            "context": recipe.eval.context or recipe.train.seq_len,
            "stride": recipe.eval.stride,
            "finest_stride": recipe.eval.finest_stride,
            "budget_s": recipe.track.eval_s,
            "adapt": recipe.eval.adapt,
        },
    }
    return get_family(recipe.model_family), recipe.model, tokens.vocab_size, stored, own, manifest


def packed_bytes(packed: dict[str, Any], *roles: str) -> int:
    """Return the sum of the bytes that tensors of these roles take in an inspected artifact."""
    return sum(int(row["coded"]) for row in packed["roles"] if row["role"] in roles)


def matrix_codec(packed: dict[str, Any]) -> str:
    """Return the name of the codec that holds most of the weights; the last lines of the log name it."""
    weights: Counter[str] = Counter()
    for row in packed["chunks"]:
        weights[row["codec"]] += row["weights"] if row["kind"].startswith("int") else 0
    return max(weights, key=lambda codec: weights[codec])
