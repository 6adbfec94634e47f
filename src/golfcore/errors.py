"""The errors of golfcore. A message says what is wrong, the value, what was expected, and what to do next."""

from __future__ import annotations

import errno
from collections.abc import Mapping

# What a machine may lack for a while: room, memory, file handles, a device, the right to write. No recipe causes these.
_LACKS = frozenset(
    getattr(errno, name)
    for name in (
        "ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "EIO", "ENOMEM", "EAGAIN", "EMFILE", "ENFILE",
        "ENODEV", "ENXIO", "ESTALE", "ETIMEDOUT", "ENOLCK", "EBUSY",
    )
)  # fmt: skip
MACHINE_CODE = 75  # EX_TEMPFAIL of sysexits.h: the same command may work later


class GolfError(Exception):
    """Base class of every error that a user can act on; the command line prints it as one line.

    ``exit_code`` is 2 for wrong usage (the command can never work as given), 75 if the machine lacks something for now,
    and 1 for all other errors. ``everywhere`` is True if every rank of a run raises the error with the same text, so
    that one rank of each machine prints it.
    """

    exit_code = 1
    everywhere = False

    def is_printed_by(self, environment: Mapping[str, str]) -> bool:
        """Return whether the process with torchrun's ``environment`` prints the error."""
        return not self.everywhere or environment.get("LOCAL_RANK", "0") == "0"

    def __str__(self) -> str:
        """Return the message as one line of printable characters, since a file or an argument may hold any others."""
        text = super().__str__()
        return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class UsageError(GolfError):
    """An unknown option, key or recipe, or a value outside its range."""

    exit_code = 2


class BuildError(GolfError):
    """The compiled core, or a package that golfcore needs, is missing or cannot serve."""


class CoreError(BuildError, ImportError):
    """The compiled core cannot be imported."""


class DeviceError(GolfError):
    """A kernel failed on a device, or could not start there."""


class InputError(GolfError):
    """Text, tokens, tensors or files that cannot be used for the task."""


class MachineError(InputError):
    """The machine lacks something for now, such as room on the disk; the same command may work later."""

    exit_code = MACHINE_CODE


class FormatError(GolfError):
    """A file that breaks its format; the message has the place in the file and the reason."""


class RuleError(GolfError):
    """A track's rule is broken: over the byte cap, over the clock, a token scored twice."""


class RankError(GolfError):
    """A rank of a distributed run is gone, hung or slow, cannot be reached, or differs from the others."""


def is_of_machine(error: BaseException) -> bool:
    """Return whether the machine and not the task is to blame: a full disk, no memory, no device, at any cause."""
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        if isinstance(at, (MachineError, DeviceError, MemoryError)) or type(at).__name__ == "OutOfMemoryError":
            return True
        if isinstance(at, OSError) and at.errno in _LACKS:
            return True
        at = at.__cause__
    return False


def exit_code(error: BaseException) -> int:
    """Return the exit code of a command that ends with this error."""
    if is_of_machine(error):
        return MACHINE_CODE
    return error.exit_code if isinstance(error, GolfError) else 1
