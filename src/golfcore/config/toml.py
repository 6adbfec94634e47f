"""Write a tree of tables as TOML text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tomli_w


def to_toml(tree: Mapping[str, Any]) -> str:
    """Return ``tree`` as TOML text that ``tomllib`` reads back to the same tree, with lists for tuples."""
    return tomli_w.dumps(tree)
