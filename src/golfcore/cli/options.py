"""Read the words of the command line: paths as they were typed, whole numbers, and one line for an error.

A range is checked by the validator of its option (``Parameter(validator=COUNT)``, see ``golfcore.ranges``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import cyclopts
from cyclopts import Parameter, Token

from golfcore.paths import user_path
from golfcore.ranges import BYTES, COUNT, SIZE, THREADS, TOKENS, VOCAB, WINDOW, Range


def read_option(kind: Any, tokens: Sequence[Token]) -> Any:
    """Convert the words of an option to its type.

    A path may begin with ``~``, and is never empty; a whole number may be written ``1e6``, and is never rounded.

    Raises:
        UsageError: an empty path.
        CoercionError: a number with a fraction, or a word of another type.
    """
    kinds = _parts(kind)
    if Path in kinds:
        tokens = [token.evolve(value=str(user_path(token.value, _name(token)))) for token in tokens]
    elif int in kinds and not {float, str} & kinds:
        tokens = [token.evolve(value=_whole(token)) for token in tokens]
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
    argument = error.argument
    if argument is not None and argument.tokens and (allowed := range_of(argument)):
        token = getattr(error, "token", None) or argument.tokens[0]
        words = [token] if isinstance(error, cyclopts.CoercionError) else argument.tokens
        given = " ".join(shown_text(word.value) for word in words)
        return f"{_name(token)} {given}: expected {' or '.join([str(allowed), *_choices(argument.hint)])}"
    return " ".join(str(error).split())


def range_of(argument: cyclopts.Argument) -> Range | None:
    """Return the range that an option declares; None if it takes no number."""
    validators = argument.parameter.validator
    assert isinstance(validators, tuple)  # cyclopts makes one of a single validator
    return next((found for found in validators if isinstance(found, Range)), None)


def shown_text(text: str) -> str:
    """Return a word of the command line for an error, not endless."""
    return text if len(text) <= 80 else text[:77] + "..."


def _parts(kind: Any) -> set[Any]:
    """Return ``kind`` and every type within it."""
    inner = () if get_origin(kind) is Literal else get_args(kind)
    return {kind}.union(*map(_parts, inner))


def _choices(kind: Any) -> list[str]:
    """Return the words that ``kind`` allows beside numbers."""
    return [str(word) for part in _parts(kind) if get_origin(part) is Literal for word in get_args(part)]


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
    if not value.is_integer():  # cyclopts would round it
        raise cyclopts.CoercionError(token=token, target_type=int)
    return str(int(value))
