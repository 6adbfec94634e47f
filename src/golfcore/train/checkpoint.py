"""Checkpoints: everything a run needs to go on as if it had never stopped."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from golfcore.errors import FormatError, InputError
from golfcore.paths import atomic_write

NAME = "checkpoint.pt"
VERSION = 2


def save_checkpoint(run_dir: Path, state: dict[str, Any]) -> Path:
    """Writes ``state`` (tensors, numbers, strings, nested) to ``run_dir/checkpoint.pt``, atomically."""
    return save_tensors(run_dir / NAME, {"version": VERSION, **state})


def save_tensors(path: Path, state: dict[str, Any]) -> Path:
    """Writes a ``torch.save`` file, atomically; through memory, since torch hides a full disk behind its own error."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with atomic_write(path) as f:
        f.write(buffer.getbuffer())
    return path


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Reads a checkpoint; never unpickles anything but tensors and plain containers.

    Raises:
        InputError: no such file.
        FormatError: not a checkpoint, or of another version.
    """
    if not path.is_file():
        raise InputError(f"no checkpoint at {path}: train with train.checkpoint_every_s > 0, or give a run's folder")
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, pickle.UnpicklingError) as error:
        raise FormatError(f"{path} is not a readable checkpoint: {str(error).splitlines()[0]}") from error
    if not isinstance(state, dict) or state.get("version") != VERSION:
        found = state.get("version") if isinstance(state, dict) else type(state).__name__
        raise FormatError(f"{path}: checkpoint version {found!r}, expected {VERSION}; made by another golfcore?")
    return state
