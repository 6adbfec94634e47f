"""How long work says how far it is, without knowing who shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Tick = Callable[[float, float, str], None]
"""``tick(done, total, note)``."""


def silent(done: float, total: float, note: str) -> None:
    """The ``Tick`` of callers that show no progress."""


class Progress(Protocol):
    """Shows the progress of one stage after another; ``golfcore.cli.output.progress`` draws bars."""

    def __call__(self, label: str, *, shown: bool = True) -> AbstractContextManager[Tick]: ...


@contextmanager
def no_progress(label: str, *, shown: bool = True) -> Iterator[Tick]:
    """The ``Progress`` of callers that show none."""
    yield silent
