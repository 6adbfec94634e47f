"""Write and parse the manifest: a small tree of values as canonical JSON, so that equal trees are equal bytes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

MAX_MANIFEST = 1 << 18  # bytes of JSON
MAX_DEPTH = 16
_INT64 = 1 << 63


class ManifestError(ValueError):
    """Raised for a value or text that a manifest cannot hold; the container adds the place."""


def to_bytes(manifest: Mapping[str, Any]) -> bytes:
    """Return canonical JSON: keys sorted by code point, no spaces, UTF-8, shortest floats; b"" for an empty tree.

    Raises:
        ManifestError: a value other than str, int of 64 bits, finite float, bool, None, list or mapping with str keys;
            more than 16 levels; more than 256 KiB.
    """
    plain = _plain(manifest, "manifest", 1)
    if not plain:
        return b""
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise ManifestError("a string holds a lone surrogate, which UTF-8 cannot write") from error
    if len(data) > MAX_MANIFEST:
        raise ManifestError(f"{len(data)} bytes of JSON, expected at most {MAX_MANIFEST}; store it as a tensor")
    return data


def from_bytes(data: bytes) -> dict[str, Any]:
    """Parse the output of ``to_bytes``; any other bytes are refused.

    Raises:
        ManifestError: ``data`` breaks a rule, which the message names.
    """
    if not data:
        return {}
    try:
        tree = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"not JSON ({error})") from error
    if not isinstance(tree, dict):
        raise ManifestError("not a JSON object")
    if to_bytes(tree) != data:  # also catches duplicate keys, which json.loads drops
        raise ManifestError("not in canonical form")
    return tree


def _plain(value: Any, key: str, depth: int) -> Any:
    if value is None or isinstance(value, (str, bool)):
        return value
    where = f"the value of {key[:40]!r}"
    if isinstance(value, int):
        if not -_INT64 <= value < _INT64:
            raise ManifestError(f"{where} is an integer of more than 64 bits")
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ManifestError(f"{where} is {value}, expected a finite number")
        return value
    if depth > MAX_DEPTH:
        raise ManifestError(f"{where} is more than {MAX_DEPTH} levels deep")
    if isinstance(value, (list, tuple)):
        return [_plain(item, key, depth + 1) for item in value]
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise ManifestError(f"{where} has the key {name!r}, expected a string")
        return {name: _plain(item, name, depth + 1) for name, item in value.items()}
    raise ManifestError(f"{where} is a {type(value).__name__}, expected str, int, float, bool, None, list or a mapping")
