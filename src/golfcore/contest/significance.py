"""Compare runs: Welch's test, paired and interleaved designs, intervals, and how many seeds are still needed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from golfcore.contest.ruleset import Policy
from golfcore.errors import InputError

POWER = 0.8  # the chance to pass that "seeds needed" stands for
MAX_SEEDS = 1_000


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison: ``gain`` is how much smaller the runs are than the others, in the unit of the values.

    ``error`` is the standard error of the gain, ``freedom`` its degrees of freedom, ``sd`` the standard deviation of
    the runs, or of the differences if the design is paired or interleaved.
    """

    design: str
    gain: float
    error: float
    freedom: float
    sd: float
    runs: int
    others: int
    other_error: float = 0.0  # the part of the error that more runs cannot reduce

    def p(self, floor: float = 0.0) -> float:
        """Return the one-sided p-value of the hypothesis that the gain is at most ``floor``."""
        if self.error == 0:
            return 0.0 if self.gain > floor else 1.0
        return student_tail((self.gain - floor) / self.error, self.freedom)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the two-sided interval of the gain."""
        half = student_quantile(0.5 + level / 2, self.freedom) * self.error
        return self.gain - half, self.gain + half


def compare(runs: Sequence[float], others: Sequence[float], design: str = "welch") -> Comparison:
    """Compare runs with others; smaller values are better.

    Args:
        runs: Losses in nats per token, or times.
        others: The same of what is to be beaten; one value is taken as exact.
        design: ``welch`` for independent seeds; ``paired`` if the i-th of both share seed or machine; ``abba`` if they
            were timed in the order A B B A, so that each block of two and two cancels a drift.

    Raises:
        InputError: there are too few values for the design, or their counts differ where they must not.
    """
    if design == "welch":
        return _welch(runs, others)
    if len(runs) != len(others):
        raise InputError(f"{design}: {len(runs)} runs and {len(others)} others; expected as many of both")
    if design == "paired":
        differences = [b - a for a, b in zip(runs, others, strict=True)]
    else:
        if len(runs) % 2:
            raise InputError(f"abba: {len(runs)} runs; expected blocks of two and two, so an even number")
        pairs = range(0, len(runs), 2)
        differences = [(others[i] + others[i + 1] - runs[i] - runs[i + 1]) / 2 for i in pairs]
    if len(differences) < 2:
        raise InputError(f"{design}: {len(differences)} difference; expected at least 2 to know how much they vary")
    sd = statistics.stdev(differences)
    error = sd / math.sqrt(len(differences))
    return Comparison(design, statistics.fmean(differences), error, len(differences) - 1, sd, len(runs), len(others))


def _welch(runs: Sequence[float], others: Sequence[float]) -> Comparison:
    if len(runs) < 2:
        raise InputError(f"{len(runs)} run: its spread is not known; expected at least 2 seeds, usually 3")
    if not others:
        raise InputError("nothing to compare with; name runs or a number with --vs")
    gain = statistics.fmean(others) - statistics.fmean(runs)
    a = statistics.variance(runs) / len(runs)
    b = statistics.variance(others) / len(others) if len(others) > 1 else 0.0
    error = math.sqrt(a + b)
    parts = a * a / (len(runs) - 1) + (b * b / (len(others) - 1) if len(others) > 1 else 0.0)
    freedom = (a + b) ** 2 / parts if parts else float(len(runs) - 1)
    return Comparison("welch", gain, error, freedom, statistics.stdev(runs), len(runs), len(others), math.sqrt(b))


def passes(comparison: Comparison, policy: Policy) -> bool:
    """Return whether a comparison shows, at the policy's p, that the gain is over its floor."""
    return comparison.p(policy.floor_nats) < policy.p


def seeds_needed(comparison: Comparison, policy: Policy) -> int | None:
    """Return how many runs in all would pass a policy with a chance of 80 %, if gain and spread stay as they are.

    None if no number would: the gain is not over the floor, or the others' own spread is too large.
    """
    excess = comparison.gain - policy.floor_nats
    if excess <= 0:
        return None
    step = 2 if comparison.design == "abba" else 1
    for count in range(2 * step, MAX_SEEDS, step):
        blocks = count // step
        error = math.hypot(comparison.sd / math.sqrt(blocks), comparison.other_error)
        freedom = max(1.0, blocks - 1.0) if not comparison.other_error else max(1.0, comparison.freedom)
        if error == 0:
            return count
        # The chance that t exceeds its bound, with the gain's own t shifted by what is expected.
        if student_tail(student_quantile(1 - policy.p, freedom) - excess / error, freedom) >= POWER:
            return count
    return None


def student_tail(t: float, freedom: float) -> float:
    """Return the chance that Student's t exceeds ``t``."""
    half = 0.5 * _beta(freedom / (freedom + t * t), freedom / 2, 0.5)
    return half if t > 0 else 1.0 - half


def student_quantile(share: float, freedom: float) -> float:
    """Return the value that Student's t stays under with a chance of ``share``, by bisection."""
    if share < 0.5:
        return -student_quantile(1 - share, freedom)
    low, high = 0.0, 1e8
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if 1 - student_tail(middle, freedom) < share else (low, middle)
    return (low + high) / 2


def _beta(x: float, a: float, b: float) -> float:
    """Return the regularized incomplete beta function, by its continued fraction (Lentz's method)."""
    if x <= 0 or x >= 1:
        return min(max(x, 0.0), 1.0)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x > (a + 1) / (a + b + 2):
        return 1.0 - _beta(1 - x, b, a)
    tiny = 1e-300
    c, d = 1.0, 1.0 / (1.0 - (a + b) * x / (a + 1) or tiny)
    result = d
    for m in range(1, 500):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 / (1.0 + numerator * d or tiny)
            c = 1.0 + numerator / c or tiny
            result *= d * c
        if abs(d * c - 1.0) < 1e-15:
            break
    return front * result / a
