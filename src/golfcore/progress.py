"""The interface by which long work reports its progress, without knowing who shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Tick = Callable[[float, float, str], None]
"""Called as ``tick(done, total, note)``; ``note`` is a short text on the present piece of work."""


def silent(done: float, total: float, note: str) -> None:
    """Show nothing: the ``Tick`` of callers that show no progress."""


class Progress(Protocol):
    """Shows the progress of one stage after another; ``golfcore.cli.output.progress`` draws bars."""

    def __call__(self, label: str, *, shown: bool = True) -> AbstractContextManager[Tick]: ...


@contextmanager
def no_progress(label: str, *, shown: bool = True) -> Iterator[Tick]:
    """Yield a ``Tick`` that shows nothing: the ``Progress`` of callers that show none."""
    yield silent
