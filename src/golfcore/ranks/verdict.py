"""Decide from the reports of all ranks which rank is lost, and why."""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass, field

SLOW_LEAST_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits beyond which a rank counts as lost.

    Attributes:
        silent_s: seconds without any message, though the connection stands.
        hang_s: seconds without progress of the main thread while it is watched, and without use of the processor. A
            process that computes is slow but alive: it may take three times the longest pause that was expected or
            seen.
        slow_factor: time of its own work per step over the median of the other ranks, if that is at least SLOW_LEAST_S
            more; 0 never ends a run for being slow.
        slow_s: seconds for which a rank has to be slow before it counts.
        leave_s: seconds that the main thread may take to leave after the verdict before the process is ended.
    """

    silent_s: float = 10.0
    hang_s: float = 20.0
    slow_factor: float = 5.0
    slow_s: float = 10.0
    leave_s: float = 3.0


@dataclass
class Pulse:
    """A rank's report on its main thread."""

    where: str = "set-up"
    waiting: bool = False  # in a collective
    collectives: int = 0  # entered so far
    watched: bool = False  # whether it should get on all the time: only then can it hang or be slow
    idle_s: float = 0.0  # since it last got on
    still_s: float = 0.0  # since the process last used a processor
    longest_s: float = 0.0  # the longest pause outside collectives that this phase allows for or has had
    work_s: float = 0.0  # outside collectives, while watched
    steps: int = 0  # done while watched


@dataclass
class Member:
    """Facts that rank 0 has about a rank."""

    rank: int
    name: str
    pulse: Pulse = field(default_factory=Pulse)
    heard_at: float = 0.0  # by rank 0's ticks
    history: deque[tuple[float, float, int]] = field(default_factory=deque)  # (tick, work_s, steps)


def judge(members: list[Member], now: float, limits: Limits) -> str:
    """Return which rank is lost and why; an empty string if none is.

    Args:
        members: the ranks that have not said goodbye, rank 0 among them.
        now: rank 0's count of seconds.
    """
    for member in members:
        if now - member.heard_at > limits.silent_s:
            return (
                f"{member.name} gives no sign of life for {now - member.heard_at:.0f} s, last at {member.pulse.where}: "
                "its process is stopped, or its machine or the link to it is gone"
            )
    return _hung(members, limits) or _slow(members, now, limits)


def _hung(members: list[Member], limits: Limits) -> str:
    if not all(m.pulse.watched for m in members) or len(members) < 2:
        return ""
    longest = max(limits.hang_s, 3 * max(m.pulse.longest_s for m in members))
    for member in members:
        pulse = member.pulse
        if pulse.waiting or pulse.idle_s <= limits.hang_s:
            continue
        if pulse.still_s > limits.hang_s:
            return (
                f"{member.name} hangs: no progress for {pulse.idle_s:.0f} s and no work for {pulse.still_s:.0f} s at "
                f"{pulse.where}"
            )
        if pulse.idle_s > longest:
            return f"{member.name} hangs: no progress for {pulse.idle_s:.0f} s at {pulse.where}, though it computes"
    if not all(m.pulse.waiting and m.pulse.idle_s > limits.hang_s for m in members):
        return ""
    first = min(members, key=lambda m: m.pulse.collectives)
    if first.pulse.collectives != max(m.pulse.collectives for m in members):
        return (
            f"{first.name} is at another collective than the others, at {first.pulse.where}: "
            "all ranks wait for each other"
        )
    return (
        f"all {len(members)} ranks wait in the same collective for {limits.hang_s:.0f} s, rank 0 at "
        f"{members[0].pulse.where}: the network between them does not deliver"
    )


def _slow(members: list[Member], now: float, limits: Limits) -> str:
    """Find a slow rank by its own work per step, without waits, over the last ``slow_s`` and at least three steps."""
    for m in members:
        if not m.pulse.watched:
            m.history.clear()
        m.history.append((now, m.pulse.work_s, m.pulse.steps))
        while len(m.history) > 2 and m.history[1][0] <= now - limits.slow_s and m.history[-1][2] - m.history[1][2] >= 3:
            m.history.popleft()
    if not limits.slow_factor or len(members) < 2:
        return ""
    each = {}
    for m in members:
        seconds, work, steps = (last - first for first, last in zip(m.history[0], m.history[-1], strict=True))
        if seconds < limits.slow_s or steps < 3:
            return ""
        each[m.rank] = work / steps
    for m in members:
        others = statistics.median_low([value for rank, value in each.items() if rank != m.rank])
        if each[m.rank] > max(limits.slow_factor * others, others + SLOW_LEAST_S):
            return (
                f"{m.name} is slow: {each[m.rank]:.2f} s of work a step over the last {limits.slow_s:.0f} s, the "
                f"others {others:.2f} s ({limits.slow_factor:g} times as much ends a run); see what else runs "
                "on its machine"
            )
    return ""
