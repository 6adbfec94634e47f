"""Write files that are never half-written under their final name, and find the user's cache."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from golfcore import machine
from golfcore.errors import InputError

CACHE_VARIABLE = "GOLFCORE_CACHE to a folder that can be written"


def cache_dir() -> Path:
    """Return ``$GOLFCORE_CACHE``, else ``$XDG_CACHE_HOME/golfcore``, else ``~/.cache/golfcore``; it is not created.

    A relative XDG_CACHE_HOME is ignored, as its standard asks.

    Raises:
        InputError: this user has no home folder.
    """
    if own := os.environ.get("GOLFCORE_CACHE"):
        return Path(own)
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if base.is_absolute():
        return base / "golfcore"
    home = machine.home()
    if home is None:
        raise InputError(
            f"user {os.getuid()} has no home folder, where downloads and prepared text are kept (HOME is not set): set "
            f"{CACHE_VARIABLE}"
        )
    return home / ".cache" / "golfcore"


@contextlib.contextmanager
def atomic_write(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Yield a file object whose content appears under ``path`` only if the block ends well, after fsync.

    A failure or an interrupt leaves an earlier file as it was and removes the temporary one.

    Raises:
        InputError: the disk is full, the folder cannot be written, or ``path`` is not a file.
    """
    try:
        if path.exists() and not path.is_file():  # root would put a file in the place of /dev/null
            what = "a folder" if path.is_dir() else "a device or pipe"
            raise InputError(f"cannot write {path}: it is {what}; name a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    except OSError as error:
        raise InputError(write_failure(path, error)) from error
    temporary = Path(name)
    try:
        with os.fdopen(fd, mode) as f:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ``golfcore data clean`` removes what nobody holds
            yield f
            f.flush()
            os.fsync(f.fileno())
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)  # mkstemp makes it private
            temporary.replace(path)
    except OSError as error:
        raise InputError(write_failure(path, error)) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_failure(path: Path, error: OSError) -> str:
    """Return one line on an ``OSError`` that happened while writing ``path``."""
    if error.errno == errno.ENOSPC:
        return f"cannot write {path}: the disk is full; free some space or write elsewhere{_cache_hint(path)}"
    return f"cannot write {path}: {error.strerror or error}{_cache_hint(path)}"


def _cache_hint(path: Path) -> str:
    """Return what to do if ``path`` lies in the user's cache, where nobody chose to write; else an empty string."""
    with contextlib.suppress(InputError):
        if path.is_relative_to(cache_dir()):
            return f"; set {CACHE_VARIABLE}"
    return ""


def disk_is_full(error: OSError) -> bool:
    """Return whether there was no room: on the disk, in the user's quota, or under a limit on files."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def sha256_file(path: Path) -> str:
    """Return the hex SHA-256 of a file, read in pieces."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
