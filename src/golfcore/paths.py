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
from golfcore.errors import InputError, UsageError

MAX_NAME = 200  # bytes of a folder's name that is made of a user's text; file systems allow 255


def user_path(text: str | Path, name: str) -> Path:
    """Return the path that a user's text means: with the home folder for a ``~`` at its start, else as it stands.

    Args:
        text: a word of the command line, a variable of the environment, a value of a recipe, or a caller's argument.
        name: the option, variable or key that the text was given for.

    Raises:
        UsageError: the text is empty or has a null character, or nobody knows the home folder that it names.
    """
    if not str(text):
        raise UsageError(f"{name}: the path is empty; name a file or folder, or . for this folder")
    if "\0" in str(text):
        raise UsageError(f"{name} {str(text)!a}: a path has no null character")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        if str(text).partition("/")[0] != "~":  # a file may well be called ~old.txt
            return Path(text)
        raise UsageError(f"{name} {text}: the home folder is not known; set HOME, or write the path in full") from None


def stored_path(text: str, name: str) -> str:
    """Return a path as a config stores it: absolute, so that it is the same from every working folder; "" stays."""
    return str(user_path(text, name).absolute()) if text else ""


def folder_name(text: str) -> str:
    """Return a plain name for a folder that looks like a user's text: no slash, no control character, not too long."""
    plain = "".join("_" if sign == "/" or not sign.isprintable() else sign for sign in text.strip())
    while len(plain.encode(errors="replace")) > MAX_NAME:
        plain = plain[:-1]
    return plain if plain.strip(".") else f"_{plain}"


CACHE_VARIABLE = "GOLFCORE_CACHE to a folder that can be written"


def cache_dir() -> Path:
    """Return ``$GOLFCORE_CACHE``, else ``$XDG_CACHE_HOME/golfcore``, else ``~/.cache/golfcore``; it is not created.

    A variable that is empty counts as not set, and a relative XDG_CACHE_HOME is ignored, as its standard asks.

    Raises:
        InputError: this user has no home folder.
        UsageError: GOLFCORE_CACHE is no path.
    """
    if own := os.environ.get("GOLFCORE_CACHE"):
        return user_path(own, "GOLFCORE_CACHE")
    if (given := os.environ.get("XDG_CACHE_HOME")) and (base := user_path(given, "XDG_CACHE_HOME")).is_absolute():
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

    Text is UTF-8, whatever the locale. A failure or an interrupt leaves an earlier file as it was and removes the
    temporary one.

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
        with os.fdopen(fd, mode, encoding=None if "b" in mode else "utf-8") as f:
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
