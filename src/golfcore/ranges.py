"""Declare the range of every number that comes from outside, and check it.

A number comes from the command line, the environment, a recipe, a file or a caller of the Python API. Its range is
declared once, as a ``Range``: as metadata of a field's type (``Annotated[int, COUNT]``), or as the validator of an
option. The ends of a range are far beyond what is useful and well within what arithmetic bears: what lies outside is a
mistake, and would end in a loop without an end, in an overflow, or in all memory taken.
"""

from __future__ import annotations

import dataclasses
import numbers
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

from golfcore.errors import GolfError, UsageError


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers that an option, a key or a field allows; neither nan nor an infinity is ever among them.

    As a validator of the command line it is called with a type and a value: ``Parameter(validator=COUNT)``.

    Attributes:
        low: the smallest number.
        high: the largest number.
        whole: whether only whole numbers are allowed.
        above: whether ``low`` itself is not allowed.
        below: whether ``high`` itself is not allowed.
        unit: the noun that is counted; it stands in errors.
    """

    low: float
    high: float
    whole: bool = True
    above: bool = False
    below: bool = False
    unit: str = ""

    def __contains__(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, numbers.Integral if self.whole else numbers.Real):
            return False
        number: Any = value  # all of this is false for nan; an integer of any size compares exactly with a float
        return bool(
            (self.low < number if self.above else self.low <= number)
            and (number < self.high if self.below else number <= self.high)
        )

    def __str__(self) -> str:
        return f"{self.unit or ('a whole number' if self.whole else 'a number')}, {self.ends()}"

    def ends(self) -> str:
        """Return the ends in words: ``1 to 64``, or ``above 0 and at most 1``."""
        if not self.above and not self.below:
            return f"{_text(self.low)} to {_text(self.high)}"
        first, last = "above" if self.above else "at least", "below" if self.below else "at most"
        return f"{first} {_text(self.low)} and {last} {_text(self.high)}"

    def __call__(self, kind: Any, value: Any) -> None:
        """Check an option of the command line, or each of several values.

        Raises:
            ValueError: a number is out of range.
        """
        for one in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(one, numbers.Real) and one not in self:
                raise ValueError(str(self))

    def check(self, name: str, value: object, error: Callable[[str], GolfError] = UsageError) -> None:
        """Raise ``error`` (UsageError, or FormatError for a file) with the name and the value if it is out of range."""
        if value not in self:
            raise error(f"{name} = {shown(value)}: expected {self}")


def shown(value: object) -> str:
    """Return a value for an error, on one line and not endless."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 256:
        return f"an integer of {value.bit_length():,} bits"
    try:
        text = repr(value)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return f"a {type(value).__name__} with an integer of thousands of digits"
    return text if len(text) <= 200 else text[:197] + "..."


def _text(end: float) -> str:
    return f"{int(end):,}" if abs(end) < 1e19 and end == int(end) else f"{end:g}"


COUNT = Range(0, 10**12)
POSITIVE = Range(1, 10**12)
SIZE = Range(0, 65_536)  # a width, or a number of threads or processes; 0 where it means none or a choice of ours
SOME_SIZE = Range(1, 65_536)
THREADS = Range(0, 1024)  # 0: all cores
LAYERS = Range(1, 10_000)
VOCAB = Range(260, 65_536)  # ids are uint16; 256 bytes and four special ids
SEED = Range(0, 10**18)  # numpy wants 0 or more, torch and a manifest 64 bits, and sweeps count on from it
TOKENS = Range(0, 2**30)  # at once
SOME_TOKENS = Range(1, 2**30)
WINDOW = Range(0, 2**20)  # tokens that attend to each other
SOME_WINDOW = Range(1, 2**20)
BYTES = Range(0, 10**15, unit="a number of bytes")
SOME_BYTES = Range(1, 10**15, unit="a number of bytes")
SECONDS = Range(0, 10**9, whole=False, unit="seconds")  # up to thirty years
SOME_SECONDS = Range(0, 10**9, whole=False, above=True, unit="seconds")
UNIX_TIME = Range(0, 10**11, whole=False, unit="seconds since 1970")
SHARE = Range(0, 1, whole=False, unit="a share")
SOME_SHARE = Range(0, 1, whole=False, above=True, unit="a share")
PART = Range(0, 1, whole=False, below=True, unit="a share")
SOME_PART = Range(0, 1, whole=False, above=True, below=True, unit="a share")
FACTOR = Range(0, 10**6, whole=False)
SOME_FACTOR = Range(0, 10**6, whole=False, above=True)
FINITE = Range(-1e300, 1e300, whole=False)  # of a float whose type declares no range
WHOLE = Range(-(2**63), 2**63 - 1)  # of an int whose type declares no range

Count = Annotated[int, COUNT]
Positive = Annotated[int, POSITIVE]
Size = Annotated[int, SIZE]
SomeSize = Annotated[int, SOME_SIZE]
Layers = Annotated[int, LAYERS]
Vocab = Annotated[int, VOCAB]
Seed = Annotated[int, SEED]
Tokens = Annotated[int, TOKENS]
SomeTokens = Annotated[int, SOME_TOKENS]
Window = Annotated[int, WINDOW]
SomeWindow = Annotated[int, SOME_WINDOW]
Bytes = Annotated[int, BYTES]
SomeBytes = Annotated[int, SOME_BYTES]
Seconds = Annotated[float, SECONDS]
SomeSeconds = Annotated[float, SOME_SECONDS]
Share = Annotated[float, SHARE]
SomeShare = Annotated[float, SOME_SHARE]
Part = Annotated[float, PART]
SomePart = Annotated[float, SOME_PART]
Factor = Annotated[float, FACTOR]
SomeFactor = Annotated[float, SOME_FACTOR]


def range_of(kind: Any) -> Range | None:
    """Return the range that a type such as ``Annotated[int, COUNT]`` declares; None if it declares none."""
    return next((item for item in getattr(kind, "__metadata__", ()) if isinstance(item, Range)), None)


def numbers_in(kind: Any, value: Any, name: str) -> Iterator[tuple[Range, str, Any]]:
    """Yield range, name and value of every number in ``value``, which is of type ``kind``.

    A number whose type declares no range has to be finite.
    """
    if typing.get_origin(kind) is Annotated and (found := range_of(kind)):
        yield found, name, value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from numbers_in(next(iter(typing.get_args(kind)), Any), item, name)
    elif isinstance(value, numbers.Real) and not isinstance(value, bool):
        declared = [found for member in typing.get_args(kind) if (found := range_of(member))]
        whole = isinstance(value, numbers.Integral)
        yield declared[0] if declared else WHOLE if whole else FINITE, name, value


def check_fields(thing: Any, where: str, error: Callable[[str], GolfError] = UsageError) -> None:
    """Check every number in a dataclass against the range that its field's type declares.

    Args:
        thing: an instance of a dataclass.
        where: the section or file, which stands in the message before the field's name.
        error: the class of the error.

    Raises:
        GolfError: of the given class; the message has the field, its value and its range.
    """
    for name, kind in field_types(type(thing)).items():
        for allowed, key, value in numbers_in(kind, getattr(thing, name), f"{where}.{name}"):
            allowed.check(key, value, error)


def field_types(cls: Any) -> dict[str, Any]:
    """Return the types of a dataclass's fields, with the ranges that they declare."""
    return _field_types(cls)


@cache
def _field_types(cls: Any) -> dict[str, Any]:
    kinds = typing.get_type_hints(cls, include_extras=True)
    return {f.name: kinds[f.name] for f in dataclasses.fields(cls)}
