"""Prepare a process before it imports torch."""

from __future__ import annotations

import contextlib
import getpass
import os

from golfcore import machine
from golfcore.errors import InputError
from golfcore.openmp import share_cores
from golfcore.paths import cache_dir
from golfcore.printing import ready_streams, use_utf8


def prepare(*, own_process: bool = True) -> None:
    """Choose encodings and the number of threads; serve users without a name or a home folder that can be written.

    Args:
        own_process: whether the process may be started again, in the UTF-8 mode of Python.
    """
    if own_process:
        use_utf8()
    ready_streams()
    share_cores()
    name_user()
    _place_caches()


def name_user() -> None:
    """Give a user without a name one, in the variable LOGNAME.

    torch asks for the name to name its cache, and fails where neither a variable nor the user database has one: in a
    container that runs under a bare number, as ``docker run --user 12345`` does.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = f"user{os.getuid()}"


def _place_caches() -> None:
    """Let matplotlib keep its fonts in golfcore's cache if it cannot in the home folder: it would warn each time."""
    home = machine.home()
    if home is None or not os.access(home, os.W_OK):
        with contextlib.suppress(InputError):
            os.environ.setdefault("MPLCONFIGDIR", str(cache_dir() / "matplotlib"))
