"""Watch the pace of steps: a processor may be shared, throttled or put to sleep during a run."""

from __future__ import annotations

import statistics
from collections import deque

WINDOW = 20  # steps whose median counts
SLOWER = 2.0  # times as long as at first: what is said


class Pace:
    """Compares the median time of the last steps with that of the first steps of the same size."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin anew, with steps of another size."""
        self._first: list[float] = []
        self._recent: deque[float] = deque(maxlen=WINDOW)
        self._is_slow = False

    def note(self, step_s: float) -> str:
        """Note the seconds of one step; return a line for the log if the pace has changed, else an empty string."""
        if len(self._first) < WINDOW:
            self._first.append(step_s)
            return ""
        self._recent.append(step_s)
        if len(self._recent) < WINDOW:
            return ""
        before, now = statistics.median(self._first), statistics.median(self._recent)
        if not self._is_slow and now > SLOWER * before:
            self._is_slow = True
            return (
                f"note: steps take {now / before:.1f} times as long as at first ({1000 * before:.0f} -> "
                f"{1000 * now:.0f} ms): the machine is shared or throttled; the schedule follows the clock, so the run "
                "ends in time with fewer steps"
            )
        if self._is_slow and now < 1.25 * before:
            self._is_slow = False
            return f"note: steps are back at {1000 * now:.0f} ms"
        return ""
