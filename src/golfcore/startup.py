"""Prepare a process before it imports torch."""

from __future__ import annotations

import getpass
import os

from golfcore.openmp import share_cores


def prepare() -> None:
    """Choose the number of threads, and give a user without a name one.

    torch asks for the user's name to name its cache, and fails where neither a variable nor the user database has one:
    in a container that runs under a bare number, as ``docker run --user 12345`` does.
    """
    share_cores()
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = f"user{os.getuid()}"
