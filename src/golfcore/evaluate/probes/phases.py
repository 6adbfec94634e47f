"""Phase timing, and the comparison with a fresh process that has nothing but the scorer's files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from golfcore.evaluate.probes.flips import Moved
from golfcore.evaluate.probes.result import TOLERANCE, ProbeResult
from golfcore.evaluate.probes.scorer import Floats, Scorer, Tokens


@dataclass(frozen=True)
class Surroundings:
    """Files and addresses that a process reached, from its first line on, and whether it had a network.

    Attributes:
        network: whether the network was cut off from it.
        opened: files that Python code opened beside the interpreter, its packages and the working folder.
        called: addresses that Python code tried to reach.
    """

    network: bool
    opened: tuple[str, ...] = ()
    called: tuple[str, ...] = ()


def fresh_process(expected: Floats, losses: Floats, around: Surroundings) -> ProbeResult:
    """Compare the losses of a fresh process with those of the probed one, and judge what it reached.

    Args:
        expected: the losses of the probed process.
        losses: the losses of a new process in an empty working folder.
        around: what the new process reached.
    """
    moved = Moved(expected)
    moved.compare(losses, len(expected) + 1, "a new process")
    found = moved.found
    if around.opened:
        found = f"the scorer opened {around.opened[0]}" + _more(around.opened)
    elif around.called:
        found = f"the scorer tried to reach {around.called[0]}" + _more(around.called)
    cut_off = "" if around.network else "the network: this system does not let it be cut off (unshare), only watched; "
    return ProbeResult(
        "fresh process", not found, moved.worst, TOLERANCE, "nats",
        "the score comes from the given files alone, without network and without training data", first=moved.first,
        found=found, open=cut_off + "files that native code opens, and what is installed beside the packages",
    )  # fmt: skip


def _more(found: tuple[str, ...]) -> str:
    return f" and {len(found) - 1} more" if len(found) > 1 else ""


def phase_timing(
    scorer: Scorer, tokens: Tokens, *, load_s: float, whole: int, budget_s: float, now: Callable[[], float]
) -> ProbeResult:
    """Time the first and a later call from outside, and predict how long the whole text takes.

    Args:
        scorer: a scorer that was not called yet.
        tokens: int64 [n].
        load_s: seconds that the scorer took to start.
        whole: number of tokens of the whole text.
        budget_s: seconds that the evaluation may take; 0 for no limit.
        now: the timer, in seconds.
    """
    began = now()
    scorer.losses(tokens)
    first_s = now() - began
    scorer.losses(tokens)
    later_s = now() - began - first_s
    rate = later_s / max(1, len(tokens) - 1)
    needed_s = load_s + first_s + rate * max(0, whole - len(tokens))
    passed = not budget_s or needed_s <= budget_s
    return ProbeResult(
        "phase timing", passed, needed_s, budget_s or float(np.inf), "s",
        "the whole text is scored within the budget", open="time that grows faster than the text",
        found=f"start {load_s:.2f} s, first call {first_s:.2f} s, later call {later_s:.2f} s for {len(tokens):,} "
        f"tokens; the whole text has {whole:,}",
    )  # fmt: skip
