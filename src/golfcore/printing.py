"""Print a user's text as it is: no control character steers the terminal, and no character ends a command."""

from __future__ import annotations

import io
import os
import sys


def printable(text: object, keep: str = "") -> str:
    r"""Return text with every control character, and every byte of a file name that is not UTF-8, written as ``\x1b``.

    The result is one line, unless ``keep`` has the newline.

    Args:
        text: anything; its ``str`` is taken.
        keep: characters that stay as they are.
    """
    signs = (sign if sign in keep or not _steers(sign) else ascii(sign)[1:-1] for sign in str(text))
    return "".join(signs)


def _steers(sign: str) -> bool:
    """Return whether a character moves the cursor, turns text around, breaks the line, or is half of a pair."""
    code = ord(sign)
    return (
        code < 0x20 or 0x7F <= code < 0xA0 or 0xD800 <= code < 0xE000
        or 0x2028 <= code <= 0x202E or 0x2066 <= code <= 0x2069
    )  # fmt: skip


def use_utf8() -> None:
    """Start the process again, once, where Python reads file names in another encoding than UTF-8.

    Configs, manifests and logs are UTF-8. Under the locale of another encoding a name with an umlaut would be another
    name in them; Python's UTF-8 mode takes names as the bytes that they are. The terminal keeps its encoding.
    """
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode:
        os.environ.setdefault("PYTHONIOENCODING", f"{sys.stdout.encoding}:backslashreplace")
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def ready_streams() -> None:
    """Let standard output and standard error write any text: what the locale's encoding lacks is written escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
