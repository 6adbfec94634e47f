"""Count seconds that do not change if the machine is suspended or its clock is set."""

from __future__ import annotations

import time


class Ticks:
    """A count of the seconds in which this thread could run; a pause of the whole machine counts as two at most."""

    def __init__(self) -> None:
        self.now, self._last = 0.0, time.monotonic()

    def advance(self) -> None:
        """Advance the count; one thread has to call this often."""
        now = time.monotonic()
        self.now += min(2.0, now - self._last)
        self._last = now

    def read(self) -> float:
        """Return the seconds so far, also between two calls of ``advance``."""
        return self.now + min(2.0, time.monotonic() - self._last)
