"""The clock of an evaluation: choose the finest sliding window with which the score is there within the budget.

With a context of L tokens a stride of S scores each token with at least L - S tokens before it, and costs L / S passes
over the text: half the stride is a better score at about twice the price. The cost on this machine is measured before
the long work, on windows of the text that are not booked. Time is the only input: nothing here looks at a loss.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

SPARE = 0.1  # share of the budget that the plan leaves free
LATE = SPARE / 2  # the plan is made anew when its end comes closer to the budget's than this share
TRIAL_BATCHES = 4  # timed for each cost that is measured, after one that is not
TRIAL_SHARE = 0.01  # of the budget: no further batch is timed after it
CHECKS = 16  # how often a plan that was taken is held against the clock


@dataclass(frozen=True)
class Clock:
    """A budget of seconds, and how much of it is spent.

    Attributes:
        budget_s: seconds for the whole evaluation: reading, probing and measuring are on the clock too.
        began: the reading of ``now`` at which the budget began.
        now: the timer, in seconds.
    """

    budget_s: float
    began: float
    now: Callable[[], float] = time.perf_counter

    def spent(self) -> float:
        """Return the seconds of the budget that are spent."""
        return self.now() - self.began


def strides(context: int, finest: int) -> list[int]:
    """Return the strides that a clock may take: ``context`` halved again and again, down to at least ``finest``.

    >>> strides(256, 16)
    [256, 128, 64, 32, 16]
    """
    found = [context]
    while found[-1] // 2 >= max(1, finest):
        found.append(found[-1] // 2)
    return found


@dataclass(frozen=True)
class WindowCost:
    """Seconds per window, as a line through two measurements, since the work grows with the positions scored."""

    fine: tuple[int, float]  # positions scored, seconds
    coarse: tuple[int, float]

    def seconds(self, tokens: int, stride: int) -> float:
        """Predict the time that ``tokens`` targets take with ``stride``."""
        (n0, s0), (n1, s1) = self.fine, self.coarse
        slope = max(0.0, s1 - s0) / (n1 - n0) if n1 > n0 else 0.0
        return tokens / stride * max(0.0, s0 + slope * (stride - n0))


def finest_within(cost: WindowCost, tokens: int, candidates: list[int], left_s: float) -> int | None:
    """Return the smallest stride with which ``tokens`` targets should take at most ``left_s`` seconds, or None."""
    fitting = [stride for stride in candidates if cost.seconds(tokens, stride) <= left_s]
    return min(fitting, default=None)


@dataclass
class Pace:
    """The strides that an evaluation took and why: part of ``score.json``.

    Attributes:
        asked: the stride that was asked for, a number or "auto".
        budget_s: the clock's budget.
        before_s: seconds of the budget that were spent when the plan was made, measuring included.
        predicted_s: predicted seconds for the rest at that time.
        tokens_per_s: scored tokens per second that were measured with the stride taken, all ranks together.
        strides: ``[first token, stride]``, one entry each time that another stride was taken.
        warnings: the warnings given on the way.
    """

    asked: int | str
    budget_s: float
    before_s: float = 0.0
    predicted_s: float = 0.0
    tokens_per_s: float = 0.0
    strides: list[tuple[int, int]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def line(self) -> str:
        """Return one line for the log."""
        how = "auto" if self.asked == "auto" else "as asked"
        taken = ", ".join(
            f"{stride}" if token == 1 else f"{stride} from token {token:,} on" for token, stride in self.strides
        )
        return (
            f"eval_stride:{taken} ({how}) tokens_per_s:{self.tokens_per_s:.0f} spent_before:{self.before_s:.1f}s "
            f"predicted:{self.predicted_s:.1f}s budget:{self.budget_s:g}s"
        )
