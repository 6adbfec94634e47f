"""The interface by which long work reports its progress, without knowing who shows it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Tick = Callable[[float, float, str], None]
"""Called as ``tick(done, total, note)``; ``note`` is a short text on the present piece of work."""


def silent(done: float, total: float, note: str) -> None:
    """Show nothing: the ``Tick`` of callers that show no progress."""


def told(tick: Tick, tell: Callable[[str], None], *, every_s: float = 30.0) -> Tick:
    """Wrap ``tick`` so that at most every ``every_s`` seconds ``tell`` gets a line on what is left of this part.

    A part ends where ``done`` falls or ``total`` changes. Work that ends sooner than that is not told of.
    """
    lock = threading.Lock()
    start = last = time.monotonic()
    first, before, whole = 0.0, 0.0, 0.0

    def wrapped(done: float, total: float, note: str) -> None:
        nonlocal start, last, first, before, whole
        tick(done, total, note)
        with lock:
            now = time.monotonic()
            if done < before or total != whole:
                start, first, whole = now, done, total
            before = done
            if now - last >= every_s and done > first:
                last = now
                left_s = (now - start) * (total - done) / (done - first)
                tell(f"{note}: {done:,.0f} of {total:,.0f}, up to {left_s:,.0f} s left")

    return wrapped


class Progress(Protocol):
    """Shows the progress of one stage after another; ``golfcore.cli.output.progress`` draws bars."""

    def __call__(self, label: str, *, shown: bool = True) -> AbstractContextManager[Tick]: ...


@contextmanager
def no_progress(label: str, *, shown: bool = True) -> Iterator[Tick]:
    """Yield a ``Tick`` that shows nothing: the ``Progress`` of callers that show none."""
    yield silent
