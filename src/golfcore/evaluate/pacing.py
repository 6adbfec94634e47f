"""Score a text within a time budget: measure, choose a stride, and adapt it on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from golfcore.evaluate.booking import Booking, rows_of
from golfcore.evaluate.clock import (
    CHECKS,
    LATE,
    SPARE,
    TRIAL_BATCHES,
    TRIAL_SHARE,
    Clock,
    Pace,
    WindowCost,
    finest_within,
    strides,
)


def book_paced(
    booking: Booking, clock: Clock, asked: int | Literal["auto"], finest: int, tell: Callable[[str], None]
) -> Pace:
    """Book the whole text in windows that the clock allows, the same windows on all ranks.

    Args:
        booking: a booking at the start of the text.
        clock: the budget.
        asked: a stride, which stays whatever it costs, or "auto" for the finest that ends within the budget.
        finest: the smallest stride that "auto" may take.
        tell: called with each warning, before the long work and on the way.
    """
    pace = Pace(asked=asked, budget_s=clock.budget_s)
    if booking.targets <= booking.context:  # one window: there is nothing to choose
        pace.strides.append((1, booking.context))
        booking.book_until(booking.targets, booking.context)
        return pace
    plan = _Plan(booking, clock, pace, asked, finest, tell)
    tell(pace.line())
    if asked == "auto":
        plan.book()
    else:
        booking.book_until(booking.targets, asked)
    return pace


class _Plan:
    """The stride for the rest of the text. All ranks decide alike, since every time is that of the slowest rank."""

    def __init__(
        self, booking: Booking, clock: Clock, pace: Pace, asked: int | Literal["auto"], finest: int,
        tell: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._booking, self._clock, self._pace, self._tell = booking, clock, pace, tell
        context, targets = booking.context, booking.targets
        self._strides = strides(context, finest if asked == "auto" else asked)
        if asked != "auto":
            self._strides = [stride for stride in self._strides if stride > asked] + [asked]
        self._cost = self._measured()
        spent_s = self._spent()
        within = finest_within(self._cost, targets, self._strides, clock.budget_s * (1 - SPARE) - spent_s)
        self._stride = (within or context) if asked == "auto" else asked
        needed_s = self._cost.seconds(targets, self._stride)
        pace.before_s, pace.predicted_s, pace.tokens_per_s = spent_s, needed_s, targets / max(needed_s, 1e-9)
        pace.strides.append((1, self._stride))
        if spent_s + needed_s > clock.budget_s:
            self._warn_of_overrun(spent_s, needed_s, within if asked != "auto" else None)

    def book(self) -> None:
        """Book the text piece by piece, with a coarser stride if the machine has become too slow for this one."""
        booking, finest = self._booking, self._stride
        rows = rows_of(booking.context, booking.batch_tokens)
        while booking.done < booking.targets:
            done, began_s = booking.done, self._spent()
            share = -(-booking.targets // (self._stride * rows * booking.ranks.size * CHECKS))  # batches of a rank
            booking.book_until(booking.stop_after(share * booking.ranks.size, self._stride), self._stride)
            if booking.done < booking.targets:
                expected_s = self._cost.seconds(booking.done - done, self._stride)
                self._hold_against_clock((self._spent() - began_s) / max(expected_s, 1e-9), finest)

    def _hold_against_clock(self, slowdown: float, finest: int) -> None:
        """Change the stride for the rest if the present one would end late, or if a finer one fits again."""
        booking, budget_s, spent_s = self._booking, self._clock.budget_s, self._spent()
        rest = booking.targets - booking.done
        possible = [stride for stride in self._strides if stride >= finest]
        left_s = (budget_s * (1 - SPARE) - spent_s) / slowdown
        stride = finest_within(self._cost, rest, possible, left_s) or booking.context
        end_s = spent_s + slowdown * self._cost.seconds(rest, self._stride)
        if stride == self._stride or (stride > self._stride and end_s <= budget_s * (1 - LATE)):
            return
        self._pace.strides.append((booking.done + 1, stride))
        if stride > self._stride:
            self._warn(
                f"evaluation runs at {1 / slowdown:.2f} of its measured speed and would end after {end_s:.0f} s of "
                f"{budget_s:.0f} s: stride {stride} instead of {self._stride} from token {booking.done + 1:,} on"
            )
        self._stride = stride

    def _measured(self) -> WindowCost:
        booking, now, limit_s = self._booking, self._clock.now, TRIAL_SHARE * self._clock.budget_s
        seconds = {
            stride: booking.seconds_per_window(stride, now, TRIAL_BATCHES, limit_s) / booking.ranks.size
            for stride in dict.fromkeys((self._strides[-1], self._strides[0]))
        }
        ends = list(seconds.items())
        return WindowCost(ends[0], ends[-1])

    def _spent(self) -> float:
        return self._booking.ranks.slowest(self._clock.spent())

    def _warn_of_overrun(self, spent_s: float, needed_s: float, fitting: int | None) -> None:
        asked, budget_s = self._pace.asked, self._clock.budget_s
        if asked == "auto":
            what = f"even the coarsest stride, {self._stride},"
            advice = "a smaller text or model, a faster machine or a larger track.eval_s would help"
        else:
            what = f"eval.stride = {asked}"
            advice = f"stride {fitting} would end in time" if fitting else "no stride would end in time"
        self._warn(
            f"{what} needs about {spent_s + needed_s:.0f} s of the {budget_s:.0f} s: the score would not count; "
            f"{advice}"
        )

    def _warn(self, line: str) -> None:
        self._pace.warnings.append(line)
        self._tell(f"warning: {line}")
