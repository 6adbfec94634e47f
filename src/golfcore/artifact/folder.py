"""Unpack a container into a folder of .npy files and a manifest.json, and pack it again to the same bytes."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from golfcore.container import Container, Tensor
from golfcore.disk import new_folder
from golfcore.errors import FormatError, InputError

MANIFEST = "manifest.json"
VERSION = 1
MAX_FILE_NAME = 200  # bytes of a tensor's name: leaves room for ".npy" in the 255 of common file systems
_KEYS = {"name": str, "role": str, "dtype": str, "bits": int, "trellis": int}


def unpack(container: Container, folder: Path) -> list[Path]:
    """Write each tensor as ``<name>.npy`` and the rest as ``manifest.json``; ``folder`` appears whole or not at all.

    Returns:
        The paths of the files in the order of the container, ``manifest.json`` last.

    Raises:
        FormatError: a damaged tensor, or a tensor's name that is not a plain file name.
        InputError: ``folder`` exists and is not an empty folder, or cannot be written.
    """
    for name in container.tensors:
        _require_plain(name)
    with new_folder(folder, last=MANIFEST) as temporary:
        for name in container.tensors:
            # Not np.save: of a full disk it says no more than how many values were written.
            content = io.BytesIO()
            np.save(content, container.read(name), allow_pickle=False)
            (temporary / f"{name}.npy").write_bytes(content.getbuffer())
        text = json.dumps(_describe(container), indent=1, sort_keys=True, ensure_ascii=False)
        (temporary / MANIFEST).write_text(text + "\n", encoding="utf-8")
    return [folder / f"{name}.npy" for name in container.tensors] + [folder / MANIFEST]


def load(folder: Path) -> tuple[list[Tensor], dict[str, Any]]:
    """Load the tensors and the manifest that ``unpack`` wrote; ``write`` makes the same container of them.

    Raises:
        InputError: a file is missing or is not as ``unpack`` writes it.
    """
    path = folder / MANIFEST
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}; expected a folder made by unpack") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from error
    if not isinstance(tree, dict) or tree.get("golfcore_unpacked") != VERSION:
        raise InputError(f'{path}: expected "golfcore_unpacked": {VERSION}; make the folder with unpack')
    rows, manifest = tree.get("tensors"), tree.get("manifest")
    if not isinstance(rows, list) or not isinstance(manifest, dict):
        raise InputError(f"{path}: expected a list 'tensors' and an object 'manifest'")
    return [_load_tensor(folder, row, f"{path}: tensor {i}") for i, row in enumerate(rows)], manifest


def _describe(container: Container) -> dict[str, Any]:
    return {
        "golfcore_unpacked": VERSION,
        "manifest": container.manifest,
        "tensors": [{key: getattr(info, key) for key in _KEYS} for info in container.tensors.values()],
    }


def _load_tensor(folder: Path, row: Any, where: str) -> Tensor:
    if not isinstance(row, dict) or not all(type(row.get(key)) is kind for key, kind in _KEYS.items()):
        raise InputError(f"{where}: expected an object with {', '.join(_KEYS)}")
    try:
        _require_plain(row["name"])
    except FormatError as error:
        raise InputError(f"{where}: {error}") from error
    path = folder / f"{row['name']}.npy"
    try:
        array = np.load(path, allow_pickle=False)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # numpy reads the head of the file as Python, with all the errors of that
        raise InputError(f"{path} is not a .npy file of plain numbers: {error}") from error
    return Tensor(array=array, **{key: row[key] for key in _KEYS})


def _require_plain(name: str) -> None:
    if name.startswith(".") or any(c in name for c in "/\\:\0") or len(name.encode()) > MAX_FILE_NAME:
        raise FormatError(
            f"tensor {name!r} is not a plain file name (no leading dot, / \\ or :, at most {MAX_FILE_NAME} bytes);"
            " read it with golfcore.container.file instead"
        )
