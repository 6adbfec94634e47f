"""Write a tree of tables as TOML text, and parse it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

import tomli_w


def to_toml(tree: Mapping[str, Any]) -> str:
    """Return ``tree`` as TOML text that ``tomllib`` reads back to the same tree, with lists for tuples."""
    return tomli_w.dumps(tree)


def from_toml(text: str) -> dict[str, Any]:
    """Parse TOML text; a byte order mark before it is passed over.

    Raises:
        ValueError: the text is not TOML; the message has the place.
    """
    try:
        return tomllib.loads(text.removeprefix("\ufeff"))
    except RecursionError as error:
        raise ValueError("brackets nested too deeply") from error
