"""Stand in for ``golfcore.config``: the values of an exported recipe have been checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


def require(condition: bool, key: str, value: object, expected: str) -> None:
    """Do nothing: golfcore has checked the recipe."""


def parse_group_k(entry: str) -> tuple[str, float]:
    """Split ``"up=11.5"`` into the name of a group or tensor and its k."""
    group, _, k = entry.partition("=")
    return group.strip(), float(k)


def section(values: Mapping[str, Any]) -> Any:
    """Return a section of a recipe: an object with ``values`` as attributes, which ``dataclasses.replace`` takes."""
    plain = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return dataclasses.make_dataclass("Section", list(plain))(**plain)
