"""Pack a model into ``model.golf`` and load it again: tensors, manifest and code.

The artifact (the packed file) is complete: quantized weights, the tokenizer, the model's code (counted, never executed)
and a manifest that says how to build the module and in which windows to score it. Nothing outside the file decides the
score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from golfcore import container
from golfcore.artifact.bundle import code_bundle
from golfcore.artifact.weights import COLUMNS, SCALE, restore
from golfcore.config import from_mapping
from golfcore.container.codec_base import Coder
from golfcore.container.tensors import Array
from golfcore.errors import FormatError, GolfError
from golfcore.model import Family, get_family
from golfcore.progress import Tick, silent
from golfcore.ranges import SOME_SIZE

if TYPE_CHECKING:
    from golfcore.model.interface import LanguageModel

TOKENIZER, CODE = "@tokenizer", "@code"


@dataclass(frozen=True)
class StoredTensor:
    """A parameter as it is stored in a file.

    Attributes:
        name: name of the parameter.
        group: the role under which it is coded.
        values: int8 symbols of ``bits`` bits, fp8 patterns (uint8), or fp16.
        scale: fp16 step sizes [O] (per row) or [O, G] (per group of columns); None if ``values`` are no symbols.
        bits: bits per symbol; 1: signs; 0: ``values`` are no symbols.
        trellis: if above 0, the symbols are trellis-coded with that many bits of state.
        column_I: fp16 factors on the columns, or None.
        low_rank: the two factors of a low-rank matrix that is added, or None.
    """

    name: str
    group: str
    values: Tensor
    scale: Tensor | None = None
    bits: int = 0
    trellis: int = 0
    column_I: Tensor | None = None
    low_rank: tuple[StoredTensor, StoredTensor] | None = None

    @classmethod
    def from_tuple(cls, fields: Sequence[Any]) -> StoredTensor:
        """Return the parameter that ``dataclasses.astuple`` turned into ``row``."""
        *own, low_rank = fields
        factors = (cls.from_tuple(low_rank[0]), cls.from_tuple(low_rank[1])) if low_rank else None
        return replace(cls(*own), low_rank=factors)

    def parts(self) -> list[container.Tensor]:
        """Return the container's tensors that make up this parameter."""
        found = [container.Tensor(self.name, self.group, self.values.numpy(), self.bits, trellis=self.trellis)]
        for suffix, factor in ((SCALE, self.scale), (COLUMNS, self.column_I)):
            if factor is not None:
                found.append(container.Tensor(self.name + suffix, "scale", factor.numpy()))
        return found + [part for item in self.low_rank or () for part in item.parts()]

    def dequantize(self) -> Tensor:
        """Return the values that a reader of the file gets, fp32."""
        parts = self.parts()
        arrays, bits = {p.name: p.array for p in parts}, {p.name: (p.bits, p.trellis) for p in parts}
        return torch.from_numpy(restore(self.name, arrays, bits))


@dataclass(frozen=True)
class LoadedModel:
    """The decoded content of an artifact."""

    module: LanguageModel
    manifest: dict[str, Any]
    tokenizer: bytes  # as the file that Tokenizer.load reads; empty if the artifact names one by hash only
    code: bytes


def model_tensors(
    family: Family, model_config: Any, vocab_size: int, stored: Sequence[StoredTensor], tokenizer: bytes,
    manifest: Mapping[str, Any],
    coder: Coder = "fast",
) -> tuple[list[container.Tensor], dict[str, Any]]:  # fmt: skip
    """Return the tensors and the manifest of a packed model.

    Args:
        family: the model's family.
        model_config: the model's config.
        vocab_size: rows of the embedding.
        stored: each parameter once.
        tokenizer: the tokenizer's file content, or empty.
        manifest: further facts: recipe, evaluation, hashes of the data. No dates, paths or host names: the same
            weights must give the same bytes.
        coder: the coder of the symbols; the source of its decoder is packed too.
    """
    tensors = [part for item in stored for part in item.parts()]
    if tokenizer:
        tensors.append(container.Tensor(TOKENIZER, "tokenizer", np.frombuffer(tokenizer, np.uint8)))
    code = code_bundle(family, coder, str(dict(manifest.get("eval", {})).get("adapt", "none")))
    tensors.append(container.Tensor(CODE, "code", np.frombuffer(code, np.uint8)))
    model = {"family": family.name, "vocab_size": vocab_size, "config": asdict(model_config)}
    return tensors, {**manifest, "model": model}


def save_model(
    path: Path, family: Family, model_config: Any, vocab_size: int, stored: Sequence[StoredTensor], tokenizer: bytes,
    manifest: Mapping[str, Any], *, coder: Coder = "fast", tick: Tick = silent,
) -> None:  # fmt: skip
    """Pack a quantized model into ``path``, atomically; the arguments are those of ``model_tensors``."""
    tensors, whole = model_tensors(family, model_config, vocab_size, stored, tokenizer, manifest, coder)
    container.write(path, tensors, whole, coder=coder, tick=tick)


def load_model(path: Path) -> LoadedModel:
    """Build the module that an artifact describes and fill in its weights, in fp32.

    Raises:
        FormatError: a broken file, an unknown family, or tensors that do not fit the model.
    """
    return build_model(path, *read_model(path))


def read_model(path: Path) -> tuple[dict[str, Any], dict[str, Array], dict[str, tuple[int, int]]]:
    """Return the manifest of an artifact, its tensors, and for each the bits per symbol and of the trellis's state."""
    with container.Container.open(path) as file:
        bits = {name: (info.bits, info.trellis) for name, info in file.tensors.items()}
        return dict(file.manifest), file.read_all(), bits


def build_model(
    path: Path, manifest: dict[str, Any], arrays: Mapping[str, Array], bits: Mapping[str, tuple[int, int]]
) -> LoadedModel:
    """Build a model out of what ``read_model`` returned; raises as ``load_model`` does."""
    try:
        model = manifest["model"]
        family, vocab_size = get_family(str(model["family"])), int(model["vocab_size"])
        config: Any = from_mapping(family.config, model["config"], "model")
        SOME_SIZE.check("vocab_size", model["vocab_size"])
        _require_as_large(family.counts(config, vocab_size), arrays)
        module = family.build(config, vocab_size, 0)
    except (KeyError, TypeError, ValueError, OverflowError, RuntimeError, GolfError) as error:
        raise FormatError(f"{path}: the manifest does not describe a model that golfcore knows: {error}") from error
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(_weight(path, name, arrays, bits, parameter.shape))
    return LoadedModel(
        module=module.eval(),
        manifest=manifest,
        tokenizer=arrays.get(TOKENIZER, np.empty(0, np.uint8)).tobytes(),
        code=arrays.get(CODE, np.empty(0, np.uint8)).tobytes(),
    )


def _require_as_large(counts: Mapping[str, tuple[str, int, int]], arrays: Mapping[str, Array]) -> None:
    """Raise ValueError if a model has more parameters than the file has values, before memory is taken for them."""
    wanted = sum(parameters for _, parameters, _ in counts.values())
    found = sum(array.size for name, array in arrays.items() if not name.startswith("@"))
    if wanted > found:
        raise ValueError(f"a model of {wanted:,} parameters, and {found:,} values in the file")


def _weight(
    path: Path, name: str, arrays: Mapping[str, Array], bits: Mapping[str, tuple[int, int]], shape: torch.Size
) -> Tensor:
    try:
        values = restore(name, arrays, bits)
    except ValueError as error:
        raise FormatError(f"{path}: {error}") from error
    if values.shape != tuple(shape):
        raise FormatError(f"{path}: {name!r} has shape {values.shape}, the model expects {tuple(shape)}")
    return torch.from_numpy(values)
