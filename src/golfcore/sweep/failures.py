"""Tell the failures of a variant, which are results, from those of the machine, which say nothing about the variant."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from typing import Literal

from golfcore.errors import MACHINE_CODE
from golfcore.sweep.worker import NO_COMMAND

CRASHES = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGSYS, signal.SIGTRAP})
NOT_EXECUTABLE = 126  # exit code of a shell, as ``NO_COMMAND``
# The words of a library where no error of ours stands between it and the end of the process.
TROUBLES = re.compile(
    r"out of memory|MemoryError|can(no|')t allocate memory|No space left|Disk quota|Read-only file system|"
    r"Too many open files|No CUDA GPUs are available|Input/output error",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Failure:
    """The reason why a run ended without a score.

    Attributes:
        kind: ``variant``, its own error, which it would make again; ``machine``, which other runs will meet too;
            ``killed``, by the system or somebody; ``crash``, of the process by itself.
        why: one line.
    """

    kind: Literal["variant", "machine", "killed", "crash"]
    why: str


def classify(status: int | None, words: str) -> Failure:
    """Return what kind of failure ended a run.

    Args:
        status: its exit code, or minus the number of the signal that killed it; None if that is not known.
        words: the last line that it printed.
    """
    own = words.removeprefix("golfcore: ")
    if status is None:
        return Failure(
            "killed", f"its process left no exit code: {own or 'killed with all others, or no room to write'}"
        )
    number = -status if status < 0 else status - 128
    if number in set(signal.Signals) and (status < 0 or number not in CRASHES):
        name = signal.Signals(number)
        kind: Literal["crash", "killed"] = "crash" if name in CRASHES else "killed"
        memory = ", as by a system that is out of memory" if name == signal.SIGKILL else ""
        return Failure(kind, f"its process was killed by {name.name}{memory}")
    if own.startswith("interrupted"):
        return Failure("killed", "its process was interrupted")
    if status in (MACHINE_CODE, NO_COMMAND, NOT_EXECUTABLE) or TROUBLES.search(words):
        return Failure("machine", own or f"its process ended with {status}: the machine lacks something")
    return Failure("variant", own or f"its process ended with {status} and without a word")
