"""Read the words of the command line: paths as they were typed, whole numbers, and one line for an error.

A range is checked by the validator of its option (``Parameter(validator=COUNT)``, see ``golfcore.ranges``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

import cyclopts
from attrs import evolve
from cyclopts import Parameter, Token

from golfcore.errors import UsageError
from golfcore.paths import user_path
from golfcore.ranges import BYTES, COUNT, SIZE, THREADS, TOKENS, VOCAB, WINDOW


def read_option(kind: Any, tokens: Sequence[Token]) -> Any:
    """Convert the words of an option to its type.

    A path may begin with ``~``, and is never empty; a whole number may be written ``1e6``, and is never rounded.

    Raises:
        UsageError: an empty path, or a number with a fraction.
    """
    kinds = _parts(kind)
    if Path in kinds:
        tokens = [evolve(token, value=str(user_path(token.value, _name(token)))) for token in tokens]
    elif int in kinds and not {float, str} & kinds:
        tokens = [evolve(token, value=_whole(token)) for token in tokens]
    return cyclopts.convert(kind, tokens)


# Of a list of paths, "[draft].txt" is one; without json_list it would be read as JSON.
PLAIN = Parameter(converter=read_option, json_list=False, json_dict=False)


Count = Annotated[int, Parameter(validator=COUNT)]
Bytes = Annotated[int, Parameter(validator=BYTES)]
Tokens = Annotated[int, Parameter(validator=TOKENS)]
Window = Annotated[int, Parameter(validator=WINDOW)]
Vocab = Annotated[int, Parameter(validator=VOCAB)]
Size = Annotated[int, Parameter(validator=SIZE)]
Threads = Annotated[int, Parameter(validator=THREADS, help="Number of threads, 0 for all cores.")]


def usage_line(error: cyclopts.CycloptsError) -> str:
    """Return one line on words that no command understands, or on a number out of range."""
    if isinstance(error, cyclopts.ValidationError) and error.argument is not None and error.argument.tokens:
        words = " ".join(token.value for token in error.argument.tokens)
        return f"{_name(error.argument.tokens[0])} {words[:80]}: expected {error.exception_message}"
    return " ".join(str(error).split())


def _parts(kind: Any) -> set[Any]:
    """Return ``kind`` and every type within it."""
    return {kind}.union(*map(_parts, get_args(kind)))


def _name(token: Token) -> str:
    return token.keyword or "argument"


def _whole(token: Token) -> str:
    """Return the digits of a whole number that is written as ``30.0`` or ``1e6``; any other word as it is."""
    if not any(sign in token.value for sign in ".eE") or "x" in token.value.lower():
        return token.value
    try:
        value = float(token.value)
    except ValueError:
        return token.value
    if not value.is_integer():
        raise UsageError(f"{_name(token)} {token.value}: expected a whole number")
    return str(int(value))
