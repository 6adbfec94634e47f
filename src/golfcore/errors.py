"""The errors of golfcore. A message says what is wrong, the value, what was expected, and what to do next."""

from collections.abc import Mapping


class GolfError(Exception):
    """Base class of every error that a user can act on; the command line prints it as one line.

    ``exit_code`` is 2 for wrong usage (the command can never work as given) and 1 for all other errors. ``everywhere``
    is True if every rank of a run raises the error with the same text, so that one rank of each machine prints it.
    """

    exit_code = 1
    everywhere = False

    def is_printed_by(self, environment: Mapping[str, str]) -> bool:
        """Return whether the process with torchrun's ``environment`` prints the error."""
        return not self.everywhere or environment.get("LOCAL_RANK", "0") == "0"


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


class FormatError(GolfError):
    """A file that breaks its format; the message has the place in the file and the reason."""


class RuleError(GolfError):
    """A track's rule is broken: over the byte cap, over the clock, a token scored twice."""


class RankError(GolfError):
    """A rank of a distributed run is gone, hung or slow, cannot be reached, or differs from the others."""
