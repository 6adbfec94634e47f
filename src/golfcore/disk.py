"""Check places on the disk before long work, and write folders whose content appears whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from golfcore.errors import InputError, MachineError
from golfcore.paths import write_failure

SPARE_BYTES = 1 << 20  # logs, report and the rest
NO_CONTENT = ("lost+found",)  # what a new file system holds
_TAKEN = "{} exists and is not an empty folder; name another or remove it"


def check_writable(folder: Path) -> None:
    """Write a file into ``folder``, replace it by another, and remove it, as every stage will do with its own.

    A folder that does not exist is made.

    Raises:
        MachineError: that does not work; the message has the reason.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".preflight.", suffix=".tmp") as place:
            old, new = Path(place) / "old", Path(place) / "new"
            old.write_bytes(b"old")
            new.write_bytes(b"new")
            new.replace(old)
    except OSError as error:
        raise MachineError(write_failure(folder, error)) from error


def check_target(path: Path) -> None:
    """Check that the file ``path`` can be written at the end of a long command; its folder is made.

    Raises:
        InputError: it is a folder or a device, or its folder cannot be written.
    """
    if path.exists() and not path.is_file():
        what = "a folder" if path.is_dir() else "a device or pipe"
        raise InputError(f"cannot write {path}: it is {what}; name a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(write_failure(path, error)) from error
    check_writable(path.parent)


def check_room(folder: Path, needed: int) -> None:
    """Check that ``needed`` bytes fit where ``folder`` is, as far as the file system and this process's limits say.

    Raises:
        MachineError: they do not; the message has both numbers.
    """
    free, needed = free_bytes(folder), needed + SPARE_BYTES
    if free is not None and free < needed:
        raise MachineError(
            f"the disk of {folder} is too small: {needed:,} bytes are needed and {free:,} are free; make room, or "
            "write elsewhere"
        )


def free_bytes(folder: Path) -> int | None:
    """Return the bytes that this user may still write where ``folder`` is; None if the file system does not say."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize if found.f_blocks else None


def require_new_folder(folder: Path) -> None:
    """Check in a moment that ``new_folder`` will be able to write ``folder``; call it before long work.

    Raises:
        InputError: the folder exists and is not empty, or its place cannot be written.
    """
    with contextlib.suppress(_Probe), new_folder(folder):
        raise _Probe


class Lock:
    """A lock on a file or folder until ``release`` or the end of the process; several may ``share`` one.

    Attributes:
        held: "yes"; "no" if another process holds it; "unknown" on a file system without locks.
    """

    def __init__(self, path: Path, how: Literal["alone", "share"]) -> None:
        """Take the lock without waiting.

        Raises:
            OSError: the path cannot be opened.
        """
        fd = os.open(path, os.O_RDONLY)
        self.release = weakref.finalize(self, os.close, fd)
        self.held: Literal["yes", "no", "unknown"] = "yes"
        try:
            fcntl.flock(fd, (fcntl.LOCK_EX if how == "alone" else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except OSError as error:
            self.held = "no" if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else "unknown"


class _Probe(Exception):
    pass


@contextlib.contextmanager
def new_folder(folder: Path, *, last: str = "") -> Iterator[Path]:
    """Yield a temporary folder whose content is that of ``folder`` if the block ends well, and is removed if not.

    A new folder is written beside its name and renamed. One that exists and is empty is written from the inside, since
    nothing can be renamed to a mounted volume: its entries appear one by one.

    Args:
        folder: does not exist, or is empty.
        last: the entry that appears last, without which the folder is not whole.

    Raises:
        InputError: the folder exists and is not empty, another process writes to it, or its place cannot be written.
    """
    inside = folder.exists()
    if inside and not folder.is_dir():
        raise InputError(_TAKEN.format(folder))
    place = folder.absolute()
    try:
        with _held(folder) if inside else contextlib.nullcontext():
            _require_empty(folder)
            temporary = (place if inside else place.parent) / f"{_prefix(place)}{secrets.token_hex(4)}.tmp"
            temporary.mkdir(parents=True)
            lock = Lock(temporary, "alone")  # so that nobody takes it for what a killed process left
            try:
                yield temporary
                if inside:
                    for path in sorted(temporary.iterdir(), key=lambda path: (path.name == last, path.name)):
                        path.rename(place / path.name)
                else:
                    temporary.rename(place)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
                lock.release()
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise InputError(
                f"{folder} was made by another process meanwhile and is not empty; choose another folder"
            ) from error
        raise InputError(write_failure(folder, error)) from error


def _prefix(place: Path) -> str:
    return f".{place.name}."


def _require_empty(folder: Path) -> None:
    """Raise InputError if the folder holds anything; what a killed process left of an earlier try is removed."""
    if not folder.exists():
        return
    for path in folder.iterdir():
        if path.name.startswith(_prefix(folder.absolute())) and path.name.endswith(".tmp"):
            shutil.rmtree(path, ignore_errors=True)
        elif path.name not in NO_CONTENT:
            raise InputError(_TAKEN.format(folder))


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Keep other processes from writing a folder from the inside at the same time."""
    lock = Lock(folder, "alone")
    try:
        if lock.held == "no":
            raise InputError(f"{folder} is being written by another process; choose another folder")
        yield
    finally:
        lock.release()
