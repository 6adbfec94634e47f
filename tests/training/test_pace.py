"""Steps that become slower are said once, and so is their return."""

from __future__ import annotations

from golfcore.training.pace import WINDOW, Pace


def lines(pace: Pace, seconds: float, count: int) -> list[str]:
    return [line for line in (pace.note(seconds) for _ in range(count)) if line]


def test_a_steady_pace_says_nothing() -> None:
    pace = Pace()
    assert not lines(pace, 0.1, 5 * WINDOW)
    assert not lines(pace, 0.19, 5 * WINDOW)


def test_slower_steps_are_said_once_and_so_is_their_end() -> None:
    pace = Pace()
    lines(pace, 0.1, 2 * WINDOW)
    (slow,) = lines(pace, 0.3, 3 * WINDOW)
    assert "3.0 times as long" in slow and "100 -> 300 ms" in slow
    (back,) = lines(pace, 0.1, 3 * WINDOW)
    assert "back at 100 ms" in back
    assert len(lines(pace, 0.4, 2 * WINDOW)) == 1


def test_a_few_slow_steps_are_nothing() -> None:
    pace = Pace()
    lines(pace, 0.1, 2 * WINDOW)
    assert not lines(pace, 5.0, WINDOW // 2 - 1)
    assert not lines(pace, 0.1, WINDOW)


def test_another_stage_has_a_pace_of_its_own() -> None:
    pace = Pace()
    lines(pace, 0.1, 2 * WINDOW)
    pace.restart()
    assert not lines(pace, 0.4, 5 * WINDOW)
