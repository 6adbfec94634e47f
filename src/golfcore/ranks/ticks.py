"""Seconds that a suspended machine and a clock that was set do not change."""

from __future__ import annotations

import time


class Ticks:
    """Seconds during which this thread could run; a pause of the whole machine counts as two at most."""

    def __init__(self) -> None:
        self.now, self._last = 0.0, time.monotonic()

    def advance(self) -> None:
        """Called often, by one thread."""
        now = time.monotonic()
        self.now += min(2.0, now - self._last)
        self._last = now

    def read(self) -> float:
        """The seconds so far, between two calls of ``advance``."""
        return self.now + min(2.0, time.monotonic() - self._last)
