"""Write and read checkpoints, which hold everything that a run needs to go on as if it had never stopped.

A checkpoint is a ``torch.save`` file followed by 40 bytes: ``GOLFSUM1`` and the SHA-256 of all bytes before it. (torch
reads such a file and ignores its end.) The newest is ``checkpoint.pt``, the one before it ``checkpoint.previous.pt``;
if one is torn or damaged, the other is used. ``CheckpointWriter`` writes in a thread of its own, so that the training
loop waits only for a copy in memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import threading
import time
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from golfcore.crash import explained
from golfcore.errors import FormatError, GolfError, InputError
from golfcore.paths import atomic_write
from golfcore.ranges import COUNT, SECONDS
from golfcore.run_folder import CHECKPOINT, PREVIOUS_CHECKPOINT
from golfcore.training.next_step import next_step

VERSION = 3
NUMBERS = {"step": COUNT, "train_s": SECONDS, "tokens": COUNT, "averaged": COUNT}
SUM_MAGIC = b"GOLFSUM1"
SUM_BYTES = len(SUM_MAGIC) + 32


def save_checkpoint(run_dir: Path, state: dict[str, Any]) -> Path:
    """Write ``state`` (tensors, numbers, strings, nested) to ``run_dir/checkpoint.pt``, atomically.

    The old file becomes the previous checkpoint; there is a whole file under the name at every moment.

    Raises:
        InputError: the disk is full or the folder cannot be written; the old file stays.
    """
    path = run_dir / CHECKPOINT
    data = _serialized({"version": VERSION, **state})
    with atomic_write(path) as f:
        f.write(data)
        f.write(SUM_MAGIC + hashlib.sha256(data).digest())
        f.flush()
        _keep_previous(run_dir)
    return path


def _keep_previous(run_dir: Path) -> None:
    """Give the checkpoint that is about to be replaced a second name."""
    link = run_dir / f".{PREVIOUS_CHECKPOINT}.tmp"
    link.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # no such file yet, or a file system without links: then one is kept
        os.link(run_dir / CHECKPOINT, link)
        link.replace(run_dir / PREVIOUS_CHECKPOINT)


def save_tensors(path: Path, state: dict[str, Any]) -> Path:
    """Write a ``torch.save`` file, atomically."""
    with atomic_write(path) as f:
        f.write(_serialized(state))
    return path


def _serialized(state: dict[str, Any]) -> memoryview:
    """Serialize in memory, since torch hides a full disk behind its own error."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getbuffer()


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint; nothing but tensors and plain containers is ever unpickled.

    Raises:
        InputError: no such file.
        FormatError: not a checkpoint, damaged, of another version, or with a number out of range.
    """
    if not path.is_file():
        raise InputError(f"no checkpoint at {path}; {next_step(path.parent)}")
    try:
        data = path.read_bytes()
        if data[-SUM_BYTES : len(SUM_MAGIC) - SUM_BYTES] == SUM_MAGIC:
            content = memoryview(data)[:-SUM_BYTES]
            if hashlib.sha256(content).digest() != data[len(SUM_MAGIC) - SUM_BYTES :]:
                raise FormatError(f"{path} is damaged: its bytes do not have the checksum at its end")
    except OSError as error:
        raise FormatError(f"{path} is not a readable checkpoint: {error.strerror or error}") from error
    state = _versioned(data, path, "a readable checkpoint", VERSION, device)
    for name, allowed in NUMBERS.items():
        if name in state:
            allowed.check(f"{path}: {name}", state[name], FormatError)
    return state


def load_tensors(path: Path, version: int) -> dict[str, Any]:
    """Read a file that ``save_tensors`` wrote; nothing but tensors and plain containers is ever unpickled.

    Raises:
        InputError: the file cannot be read.
        FormatError: it is no such file, or of another version.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    return _versioned(data, path, "readable", version, "cpu")


def _versioned(data: bytes, path: Path, what: str, version: int, device: torch.device | str) -> dict[str, Any]:
    """Return the dict of a ``torch.save`` file; its version must be ``version``."""
    try:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in zipfile.ZipFile(io.BytesIO(data)).infolist()):
            raise ValueError("its parts are compressed, and torch never compresses them")  # a bomb, then
        with warnings.catch_warnings(action="ignore"):
            state = torch.load(io.BytesIO(data), map_location=device, weights_only=True)
    except Exception as error:  # there is hardly one that hostile bytes cannot raise inside of torch
        raise FormatError(f"{path} is not {what}: {_first_line(error)}") from error
    found = state.get("version") if isinstance(state, dict) else None
    if not isinstance(state, dict) or type(found) is not int or found != version:
        # Not the value itself: a few bytes can describe one that takes a terabyte to print.
        kind = f"version {found}" if type(found) is int else f"{type(state).__name__} without a version"
        raise FormatError(f"{path}: {kind}, expected version {version}; written by another version of golfcore")
    return state


def _first_line(error: Exception) -> str:
    """Return the first line of an error, or its class: torch explains a bad file at length, an empty one not at all."""
    line = next(iter(str(error).splitlines()), "") or type(error).__name__
    return line[:300] if line.isprintable() else ascii(line[:300])


def load_newest(run_dir: Path, device: torch.device | str = "cpu") -> tuple[dict[str, Any], str]:
    """Load the newest whole checkpoint of a run, and return a note if a newer one is damaged.

    Raises:
        InputError: there is no checkpoint.
        FormatError: no checkpoint can be read.
    """
    try:
        return load_checkpoint(run_dir / CHECKPOINT, device), ""
    except GolfError as error:
        if not (run_dir / PREVIOUS_CHECKPOINT).is_file():
            raise
        return load_checkpoint(run_dir / PREVIOUS_CHECKPOINT, device), f"{error}; going on from {PREVIOUS_CHECKPOINT}"


class CheckpointWriter:
    """A writer of a run's checkpoints in a thread, one at a time.

    Attributes:
        lag_s: seconds from the last ``submit`` until that checkpoint was on the disk.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.lag_s = 0.0
        self._thread: threading.Thread | None = None
        self._copies: dict[str, Tensor] = {}
        self._failure = ""
        for torn in run_dir.glob(f".{CHECKPOINT}.*.tmp"):  # of a process that was killed while it wrote
            torn.unlink(missing_ok=True)

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def submit(self, state: dict[str, Any]) -> None:
        """Copy ``state`` and begin to write the copy, after the one before is written."""
        self.wait()
        started = time.monotonic()
        memo: dict[tuple[Any, ...], Tensor] = {}
        copy = self._copy(state, "", memo)
        copied = torch.cuda.current_stream().record_event() if torch.cuda.is_available() else None
        self._thread = threading.Thread(
            target=self._write, args=(copy, copied, started), name="checkpoint-writer", daemon=True
        )
        self._thread.start()

    def wait(self) -> None:
        """Wait until nothing is being written."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def failure(self) -> str:
        """Return, once, why the last checkpoint could not be written; an empty string if it could."""
        text, self._failure = self._failure, ""
        return text

    def _write(self, state: dict[str, Any], copied: torch.cuda.Event | None, started: float) -> None:
        try:
            if copied is not None:
                copied.synchronize()
            save_checkpoint(self.run_dir, state)
        except Exception as error:  # neither a full disk nor a lack of memory may end the training
            self._failure, _ = explained(error)
        self.lag_s = time.monotonic() - started

    def _copy(self, value: Any, path: str, memo: dict[tuple[Any, ...], Tensor]) -> Any:
        """Copy every tensor in ``value`` into this writer's memory; tensors that share memory still share it."""
        if isinstance(value, dict):
            return {key: self._copy(item, f"{path}/{key}", memo) for key, item in value.items()}
        if not isinstance(value, Tensor):
            return value
        key = (value.data_ptr(), value.shape, value.stride(), value.dtype, value.device)
        if key not in memo:
            on_gpu = value.device.type == "cuda"
            old = self._copies.get(path)
            if old is None or old.shape != value.shape or old.dtype != value.dtype:
                old = self._copies[path] = torch.empty(value.shape, dtype=value.dtype, pin_memory=on_gpu)
            memo[key] = old.copy_(value.detach(), non_blocking=on_gpu)
        return memo[key]
