"""Models in and out of ``model.golf``: which tensors, which manifest, which code.

The artifact is complete: quantised weights, the tokenizer, the model's code (counted, never executed) and a manifest
that says how to build the module and how its score is read. Nothing from outside the file decides the number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from golfcore.artifact import container
from golfcore.artifact.codec_base import Coder
from golfcore.artifact.tensors import Array
from golfcore.artifact.trellis import points
from golfcore.config import from_mapping
from golfcore.errors import FormatError, GolfError
from golfcore.model import Family, get_family
from golfcore.progress import Tick, silent

if TYPE_CHECKING:
    from golfcore.model.base import LanguageModel

TOKENIZER, CODE = "@tokenizer", "@code"
SCALE_SUFFIX = ".scale"
# What turns the bytes back into weights: a decoder that needs nothing else. The model's own files come from its family.
READER_SOURCES = ("artifact/model_io.py", "artifact/plain_decoder.py")
SMALLEST_SOURCES = ("artifact/plain_binary.py",)  # where coder is "smallest"


@dataclass(frozen=True)
class StoredTensor:
    """A parameter as it is stored: fp16 values, or int8 symbols of ``bits`` bits with fp16 row scales [O].

    ``trellis`` above 0: the symbols are trellis-coded with that many bits of state (``golfcore.artifact.trellis``).
    """

    name: str
    group: str
    values: Tensor
    scale_O: Tensor | None = None
    bits: int = 0
    trellis: int = 0

    def dequantise(self) -> Tensor:
        """The values as a reader gets them, fp32."""
        if self.scale_O is None:
            return self.values.float()
        return _dequantise(self.values.numpy(), self.scale_O.numpy(), self.trellis)


@dataclass(frozen=True)
class LoadedModel:
    """What an artifact holds, decoded."""

    module: LanguageModel
    manifest: dict[str, Any]
    tokenizer: bytes  # as the file that Tokenizer.load reads; empty if the artifact names one by hash only
    code: bytes


def code_bundle(family: Family, coder: Coder = "fast") -> bytes:
    """The source files that the score depends on, each behind a line with its name; the same bytes on any machine."""
    package = files("golfcore")
    parts = []
    for name in sorted({*family.sources, *READER_SOURCES, *(SMALLEST_SOURCES if coder == "smallest" else ())}):
        text = package.joinpath(name).read_text(encoding="utf-8")
        parts.append(f"# --- {name}\n{text}")
    return "".join(parts).encode()


def save_model(
    path: Path,
    family: Family,
    model_config: Any,
    vocab_size: int,
    stored: Sequence[StoredTensor],
    tokenizer: bytes,
    manifest: Mapping[str, Any],
    *,
    coder: Coder = "fast",
    tick: Tick = silent,
) -> None:
    """Packs a quantised model into ``path``, atomically.

    Args:
        path: where to.
        family: the model's family.
        model_config: its config.
        vocab_size: rows of the embedding.
        stored: every parameter once.
        tokenizer: the tokenizer's file content, or empty.
        manifest: further facts: recipe, evaluation, hashes of the data. No dates, paths or host names: the same
            weights must give the same bytes.
        coder: how symbols are coded (``container.encode``).
        tick: told about progress.
    """
    tensors: list[container.Tensor] = []
    for item in stored:
        values = item.values.numpy()
        tensors.append(container.Tensor(item.name, item.group, values, item.bits, trellis=item.trellis))
        if item.scale_O is not None:
            tensors.append(container.Tensor(item.name + SCALE_SUFFIX, "scale", item.scale_O.numpy()))
    if tokenizer:
        tensors.append(container.Tensor(TOKENIZER, "tokenizer", np.frombuffer(tokenizer, np.uint8)))
    tensors.append(container.Tensor(CODE, "code", np.frombuffer(code_bundle(family, coder), np.uint8)))
    model = {"family": family.name, "vocab_size": vocab_size, "config": asdict(model_config)}
    container.write(path, tensors, {**manifest, "model": model}, coder=coder, tick=tick)


def load_model(path: Path) -> LoadedModel:
    """Builds the module an artifact describes and fills in its weights, in fp32.

    Raises:
        FormatError: a broken file, an unknown family, or tensors that do not fit the model.
    """
    with container.Container.open(path) as file:
        manifest = dict(file.manifest)
        arrays = file.read_all()
        trellises = {name: info.trellis for name, info in file.tensors.items()}
    try:
        model = manifest["model"]
        family = get_family(str(model["family"]))
        config: Any = from_mapping(family.config, model["config"], "model")
        module = family.build(config, int(model["vocab_size"]), 0)
    except (KeyError, TypeError, ValueError, GolfError) as error:
        raise FormatError(f"{path}: the manifest does not describe a model golfcore knows: {error}") from error
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(_weight(path, name, arrays, trellises.get(name, 0), parameter.shape))
    return LoadedModel(
        module=module.eval(),
        manifest=manifest,
        tokenizer=arrays.get(TOKENIZER, np.empty(0, np.uint8)).tobytes(),
        code=arrays.get(CODE, np.empty(0, np.uint8)).tobytes(),
    )


def _weight(path: Path, name: str, arrays: Mapping[str, Array], trellis: int, shape: torch.Size) -> Tensor:
    if name not in arrays:
        raise FormatError(f"{path}: tensor {name!r} is missing")
    stored, scale = arrays[name], arrays.get(name + SCALE_SUFFIX)
    if scale is None:
        values = torch.from_numpy(stored).float()
    elif stored.ndim == 2 and scale.shape == stored.shape[:1]:
        values = _dequantise(stored, scale, trellis)
    else:
        raise FormatError(f"{path}: {name!r} has shape {stored.shape}, its scales {scale.shape}")
    if values.shape != shape:
        raise FormatError(f"{path}: {name!r} has shape {tuple(values.shape)}, the model wants {tuple(shape)}")
    return values


def _dequantise(symbols_OI: Array, scale_O: Array, trellis: int) -> Tensor:
    steps_O = torch.from_numpy(scale_O).float()
    if trellis:
        return torch.from_numpy(points(symbols_OI, trellis)).float() * (steps_O / 2)[:, None]
    return torch.from_numpy(symbols_OI).float() * steps_O[:, None]


def sha256_of(data: bytes) -> str:
    """Hex SHA-256."""
    return hashlib.sha256(data).hexdigest()
