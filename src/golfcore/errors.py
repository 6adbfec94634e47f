"""The errors of golfcore. A message says what is wrong, the value, what was expected, and what to do next."""


class GolfError(Exception):
    """Base class of every error that a user can act on; the command line prints it as one line.

    ``exit_code`` is 2 for wrong usage (the command can never work as given) and 1 for all other errors.
    """

    exit_code = 1

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


class FormatError(GolfError):
    """A file that breaks its format; the message has the place in the file and the reason."""


class RuleError(GolfError):
    """A track's rule is broken: over the byte cap, over the clock, a token scored twice."""


class RankError(GolfError):
    """A rank of a distributed run is gone, hung or slow, cannot be reached, or differs from the others."""
