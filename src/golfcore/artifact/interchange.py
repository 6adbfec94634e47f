"""Convert a container into a .safetensors file and back; needs the package ``safetensors``.

Symbols and scales are written as they are. The manifest and each tensor's role, bits and trellis have no place in the
format; they are JSON in its metadata, so that a file written here gives the same container again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from golfcore.container import Container, Tensor
from golfcore.errors import FormatError, InputError
from golfcore.paths import atomic_write

if TYPE_CHECKING:
    import torch

KEY, VERSION = "golfcore", 1
_KEYS = {"name": str, "role": str, "dtype": str, "bits": int, "trellis": int}


def write_safetensors(container: Container, path: Path) -> None:
    """Write every tensor and the manifest; ``path`` never holds half a file.

    Raises:
        FormatError: a damaged tensor.
        InputError: safetensors is not installed, or the file cannot be written.
    """
    _require()
    import torch
    from safetensors.torch import save

    tensors = {}
    for name, array in container.read_all().items():
        tensor = torch.from_numpy(array)
        tensors[name] = tensor.view(torch.bfloat16) if container.tensors[name].dtype == "bf16" else tensor
    described = [{key: getattr(info, key) for key in _KEYS} for info in container.tensors.values()]
    own = {"version": VERSION, "manifest": container.manifest, "tensors": described}
    with atomic_write(path) as f:
        f.write(save(tensors, {KEY: json.dumps(own, ensure_ascii=False)}))


def read_safetensors(path: Path) -> tuple[list[Tensor], dict[str, Any]]:
    """Read tensors and manifest; in a file not written here every tensor has role ``tensor`` and the manifest is empty.

    Raises:
        FormatError: not a safetensors file, or metadata that does not fit its tensors.
        InputError: safetensors is not installed, the file cannot be read, or a container cannot hold one of its dtypes.
    """
    found, metadata = _load(path)
    if KEY not in metadata:
        return [_tensor(path, {"name": name, "role": "tensor"}, tensor) for name, tensor in found.items()], {}
    rows, manifest = _described(path, metadata[KEY])
    if sorted(row["name"] for row in rows) != sorted(found):
        raise FormatError(f"{path}: its metadata names other tensors than the file holds; make it again with unpack")
    return [_tensor(path, row, found[row["name"]]) for row in rows], manifest


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Load the tensors of any safetensors file; raises as ``read_safetensors`` does."""
    return _load(path)[0]


def _load(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    _require()
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 (no mapping)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except SafetensorError as error:
        raise FormatError(f"{path} is not a safetensors file: {error}") from error


def _described(path: Path, text: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: metadata {KEY!r} is not JSON: {error}") from error
    rows = tree.get("tensors") if isinstance(tree, dict) and tree.get("version") == VERSION else None
    if not isinstance(rows, list) or not isinstance(tree.get("manifest"), dict):
        raise FormatError(f'{path}: metadata {KEY!r}: expected "version": {VERSION}, a manifest and a list of tensors')
    for i, row in enumerate(rows):
        if not isinstance(row, dict) or not all(type(row.get(key)) is kind for key, kind in _KEYS.items()):
            raise FormatError(f"{path}: metadata of tensor {i}: expected an object with {', '.join(_KEYS)}")
    return rows, tree["manifest"]


def _tensor(path: Path, row: dict[str, Any], tensor: torch.Tensor) -> Tensor:
    import torch

    if tensor.dtype == torch.bfloat16:
        return Tensor(row["name"], row["role"], tensor.view(torch.uint16).numpy(), dtype="bf16")
    try:
        array = tensor.numpy()
    except TypeError as error:
        raise InputError(
            f"{path}: tensor {row['name']!r} has dtype {tensor.dtype}, which a container cannot hold"
        ) from error
    given = {key: row[key] for key in ("bits", "dtype", "trellis") if key in row}
    return Tensor(row["name"], row["role"], array, **given)


def _require() -> None:
    try:
        import safetensors  # noqa: F401
    except ImportError as error:
        raise InputError("safetensors is not installed: pip install 'golfcore[safetensors]'") from error
