"""How long work tells where it stands, without knowing who shows it."""

from __future__ import annotations

from collections.abc import Callable

Tick = Callable[[float, float, str], None]
"""``tick(done, total, note)``."""


def silent(done: float, total: float, note: str) -> None:
    """The ``Tick`` of callers that show no progress."""
