"""Temporary folders that a killed process leaves, and how to find and remove what it left.

A process locks what it is making and what it reads of the cache. The operating system takes the lock back when its
process ends, however it ends, so what nobody holds is a leftover.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from golfcore.data.hints import prepared_cache
from golfcore.disk import Lock
from golfcore.errors import InputError
from golfcore.paths import cache_dir, write_failure
from golfcore.run_folder import CONFIG, OWNER, PREVIOUS_CHECKPOINT

# What ``atomic_write`` and ``temporary_folder`` make: the final name between a dot and eight characters.
_TEMPORARY = re.compile(rf"\..+\.[a-z0-9_]{{8}}\.tmp|\.{re.escape(PREVIOUS_CHECKPOINT)}\.tmp")
_DEPTH = 3  # folders below the one that is named


@contextlib.contextmanager
def temporary_folder(final: Path) -> Iterator[Path]:
    """Yield a locked folder beside ``final``, named after it; it is removed at the end unless it was moved away.

    Raises:
        InputError: the disk is full, or the folder cannot be written.
    """
    try:
        folder, lock = _claimed(final)
    except OSError as error:
        raise InputError(write_failure(final, error)) from error
    try:
        yield folder
    except OSError as error:
        raise InputError(write_failure(final, error)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def _claimed(final: Path) -> tuple[Path, Lock]:
    """Create and lock a folder; if it was taken for a leftover before it was locked, create another."""
    while True:
        folder = final.parent / f".{final.name}.{secrets.token_hex(4)}.tmp"
        folder.mkdir(parents=True)
        with contextlib.suppress(FileNotFoundError):
            lock = Lock(folder, "alone")
            if lock.held != "no" and folder.is_dir():
                return folder, lock
            lock.release()


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file or folder that may be removed.

    Attributes:
        path: its path.
        bytes: its size on the disk, with all that is in it.
        used: why it is kept, such as "in use by a process"; empty if nothing uses it.
    """

    path: Path
    bytes: int
    used: str


def leftovers(folders: Sequence[Path] = (), *, prepared: bool = False) -> list[Leftover]:
    """Return what killed processes left in the cache and in ``folders``, such as that of the runs; sorted.

    Args:
        folders: folders in which runs or tokens were made, and those up to three levels below them.
        prepared: whether the cache's prepared texts are listed too.

    Raises:
        InputError: one of the folders does not exist.
    """
    found: set[Path] = set()
    for folder in (cache_dir(), *folders):
        if folder.is_dir():
            found |= set(_temporary(folder, _DEPTH))
        elif folder in folders:
            raise InputError(f"{folder}: no such folder; name folders in which runs or tokens were made")
    if prepared:
        found |= {path for path in _entries(prepared_cache()) if path.is_dir()}
    return [Leftover(path, _size(path), _used(path)) for path in sorted(found)]


def remove(leftover: Leftover) -> str:
    """Remove a leftover unless a process uses it by now; return why it is kept, or an empty string."""
    path = leftover.path
    try:
        lock = Lock(path, "alone")
        if reason := _why_kept(path, lock):
            return reason
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        lock.release()
    except FileNotFoundError:
        return ""
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _temporary(folder: Path, depth: int) -> Iterator[Path]:
    for path in _entries(folder):
        if _TEMPORARY.fullmatch(path.name):
            yield path
        elif depth and path.is_dir() and not path.is_symlink():
            yield from _temporary(path, depth - 1)


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:  # it is gone, or cannot be read
        return []


def _used(path: Path) -> str:
    try:
        lock = Lock(path, "alone")
    except OSError as error:
        return error.strerror or str(error)
    reason = _why_kept(path, lock)
    lock.release()
    return reason


def _why_kept(path: Path, lock: Lock) -> str:
    """Return why a path whose lock was tried is kept; in the folder of a run its owner's lock counts too."""
    held = lock.held
    if held == "yes" and (path.parent / CONFIG).is_file() and (path.parent / OWNER).is_file():
        owner = Lock(path.parent / OWNER, "alone")
        held = owner.held
        owner.release()
    return {"yes": "", "no": "in use by a process", "unknown": "no locks here that would tell whether it is used"}[held]


def _size(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    total = 0
    with contextlib.suppress(OSError):
        if not path.is_dir() or path.is_symlink():
            return path.lstat().st_size
    for place, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                total += Path(place, name).lstat().st_size
    return total
