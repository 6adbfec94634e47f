"""Write a tree of tables as TOML text, decode the bytes of a TOML file, and parse TOML text."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

import tomli_w

from golfcore.errors import UsageError


def to_toml(tree: Mapping[str, Any]) -> str:
    """Return ``tree`` as TOML text that ``tomllib`` reads back to the same tree, with lists for tuples."""
    return tomli_w.dumps(tree)


def decode_toml(content: bytes, where: str) -> str:
    """Return the text of a TOML file; a byte order mark, which editors of Windows write, is no part of it.

    Raises:
        UsageError: the file is not in UTF-8; ``where`` names it.
    """
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UsageError(f"{where}: in UTF-16, as the byte order mark at its start says; save it in UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte = content[error.start]
        raise UsageError(f"{where}: not UTF-8, byte 0x{byte:02x} at offset {error.start}; save it in UTF-8") from error


def from_toml(text: str) -> dict[str, Any]:
    """Parse TOML text.

    Raises:
        ValueError: the text is not TOML; the message has the place.
    """
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("brackets nested too deeply") from error
