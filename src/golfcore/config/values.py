"""Convert and check the values of a recipe, and read them from text."""

from __future__ import annotations

import tomllib
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from golfcore.errors import UsageError
from golfcore.ranges import field_types, numbers_in, range_of, shown
from golfcore.suggest import nearest

T = TypeVar("T")


class GivenText(str):
    """A value from the command line or the environment; the type of its key decides how it is parsed."""

    __slots__ = ()


def require(condition: bool, key: str, value: object, expected: str) -> None:
    """Raise a UsageError that names ``key`` and its value unless ``condition`` holds."""
    if not condition:
        raise UsageError(f"{key} = {shown(value)}: expected {expected}")


def words(cls: type) -> dict[str, tuple[str, ...]]:
    """Return the words that each field of a dataclass accepts, for the fields that accept nothing but words."""
    kinds = typing.get_type_hints(cls)
    return {f: typing.get_args(k) for f, k in kinds.items() if typing.get_origin(k) is Literal}


def from_mapping(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Build the frozen dataclass ``cls`` from ``values``; ``where`` names the section in errors.

    Raises:
        UsageError: an unknown key, or a value of another type than the field's.
    """
    fields = field_types(cls)
    out: dict[str, Any] = {}
    for key, value in values.items():
        if key not in fields:
            raise UsageError(f"unknown key {where}.{key}{nearest(key, fields)}")
        out[key] = convert(value, fields[key], f"{where}.{key}")
    return cls(**out)


def convert(value: Any, kind: Any, key: str) -> Any:
    """Return ``value`` as the type ``kind``; ``key`` names it in errors.

    Beyond what msgspec converts, 1 and 0 are accepted as booleans, because the contest writes ``TIE_EMBEDDINGS=1``,
    floats without a fraction as integers (``1e6``), and ``GivenText`` is read according to ``kind``.

    Raises:
        UsageError: ``value`` is of another type, a number outside the range that ``kind`` declares, text that UTF-8
            cannot hold, or a word that ``kind`` does not know; names the nearest word.
    """
    if isinstance(value, GivenText):
        value = read_text(value, kind)
    try:
        found = msgspec.convert(_adapted(value, kind), kind)
    except (msgspec.ValidationError, UnicodeEncodeError):
        hint = nearest(value, _choices(kind)) if isinstance(value, str) else ""
        raise UsageError(f"{key} = {shown(value)}: expected {describe(kind)}{hint}") from None
    for allowed, name, number in numbers_in(kind, found, key):
        allowed.check(name, number)
    for text in found if isinstance(found, tuple) else [found]:
        if isinstance(text, str):
            require_utf8(text, key)
    return found


def require_utf8(text: str, key: str) -> None:
    """Raise a UsageError if a text holds bytes of a file name that are not UTF-8: no recipe and no log can hold it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{key} = {text!a}: expected text in UTF-8; rename the file, or link to it") from None


def read_text(text: str, kind: Any) -> Any:
    """Return the value of type ``kind`` that ``text`` stands for.

    A string keeps ``text`` exactly, so that ``1.10`` and ``007`` stay what they are; only a string in the quotes of
    TOML loses them. Every other type is read as TOML.
    """
    if _members(kind) != (str,):
        return parse_value(text)
    quoted = text[:1] in ("'", '"') and text[:1] == text[-1:]
    value = parse_value(text) if quoted else None
    return value if isinstance(value, str) else str(text)


def parse_value(text: str) -> Any:
    """Return the TOML value that ``text`` is (``8``, ``0.03``, ``true``, ``[1, 2]``), or ``text`` if it is not TOML."""
    text = text.strip()
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except (ValueError, RecursionError):  # a number of thousands of digits, or brackets without end
        return text


def describe(kind: Any) -> str:
    """Return the allowed values of type ``kind``, in words for an error or a help text."""
    if typing.get_origin(kind) is Annotated:
        return str(range_of(kind) or describe(_plain(kind)))
    if typing.get_origin(kind) is Literal:
        return " or ".join(map(str, typing.get_args(kind)))
    if _is_union(kind):
        return " or ".join(map(describe, _members(kind)))
    if typing.get_origin(kind) in (tuple, list):
        item = typing.get_args(kind)[0]
        ends = f", each {allowed.ends()}" if (allowed := range_of(item)) else ""
        return f"a list of {_NOUNS.get(_plain(item), 'values')}s{ends}"
    if kind is bool:
        return "true or false"
    return f"a {_NOUNS[kind]}" if kind in _NOUNS else str(getattr(kind, "__name__", kind))


_NOUNS = {int: "whole number", float: "number", str: "quoted text"}


def set_key(tree: dict[str, Any], dotted: str, value: Any) -> None:
    """Set ``section.key`` in a tree of tables."""
    section, dot, key = dotted.partition(".")
    if not dot or "." in key:
        raise UsageError(f"{dotted!r}: expected section.key, for example train.seed")
    table = tree.setdefault(section, {})
    if not isinstance(table, dict):
        raise UsageError(f"{section!r} is a value, not a section")
    table[key] = value


def parse_set(option: str) -> tuple[str, GivenText]:
    """Split ``"optim.matrix_lr=0.03"`` into its key and the text of its value."""
    key, equals, text = option.partition("=")
    if not equals:
        raise UsageError(f"--set {option}: expected section.key=value, for example optim.matrix_lr=0.03")
    return key.strip().replace("-", "_"), GivenText(text)


def _adapted(value: Any, kind: Any) -> Any:
    """Return ``value``, or an equal value of a type that msgspec accepts for ``kind``."""
    kind = _plain(kind)
    if typing.get_origin(kind) in (tuple, list) and isinstance(value, (list, tuple)):
        return [_adapted(item, typing.get_args(kind)[0]) for item in value]
    if kind is bool and isinstance(value, int) and value in (0, 1):
        return bool(value)
    kinds = tuple(map(_plain, _members(kind)))
    if int in kinds and float not in kinds and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _plain(kind: Any) -> Any:
    """Return a type without the range that it declares."""
    return typing.get_args(kind)[0] if typing.get_origin(kind) is Annotated else kind


def _is_union(kind: Any) -> bool:
    return isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union


def _members(kind: Any) -> tuple[Any, ...]:
    """Return the types of a union without None, or ``kind`` alone if it is no union."""
    return tuple(k for k in typing.get_args(kind) if k is not type(None)) if _is_union(kind) else (kind,)


def _choices(kind: Any) -> tuple[str, ...]:
    """Return the words among the values that ``kind`` allows."""
    literals = [k for k in _members(kind) if typing.get_origin(k) is Literal]
    return tuple(word for k in literals for word in typing.get_args(k))
