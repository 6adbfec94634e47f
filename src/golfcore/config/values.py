"""Convert and check the values of a recipe, and read them from text."""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from golfcore.errors import UsageError
from golfcore.suggest import nearest

T = TypeVar("T")


def require(condition: bool, key: str, value: object, expected: str) -> None:
    """Raises a UsageError that names ``key`` and its value unless ``condition`` holds."""
    if not condition:
        raise UsageError(f"{key} = {value!r}: expected {expected}")


def words(cls: type) -> dict[str, tuple[str, ...]]:
    """The fields of a dataclass that are one of a few words."""
    kinds = typing.get_type_hints(cls)
    return {f: typing.get_args(k) for f, k in kinds.items() if typing.get_origin(k) is Literal}


def from_mapping(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Builds the frozen dataclass ``cls`` from ``values``; ``where`` names the section in errors.

    Raises:
        UsageError: an unknown key, or a value of another type than the field's.
    """
    kinds = typing.get_type_hints(cls)
    fields = {f.name: kinds[f.name] for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    out: dict[str, Any] = {}
    for key, value in values.items():
        if key not in fields:
            raise UsageError(f"unknown key {where}.{key}{nearest(key, fields)}")
        out[key] = _coerce(fields[key], value, f"{where}.{key}")
    return cls(**out)


def _coerce(kind: Any, value: Any, where: str) -> Any:
    if typing.get_origin(kind) in (tuple, list) and isinstance(value, (list, tuple)):
        inner = typing.get_args(kind)[0]
        return tuple(_coerce(inner, v, where) for v in value)
    if typing.get_origin(kind) is Literal:
        words = typing.get_args(kind)
        require(value in words, where, value, " or ".join(words) + nearest(str(value), words))
        return value
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:  # a word, else what else it may be
        kinds = typing.get_args(kind)
        words = tuple(word for k in kinds if typing.get_origin(k) is Literal for word in typing.get_args(k))
        if isinstance(value, str) and words:
            require(value in words, where, value, "a number or " + " or ".join(words) + nearest(value, words))
            return value
        kind = next(k for k in kinds if k is not type(None) and typing.get_origin(k) is not Literal)
    if kind is bool and isinstance(value, int) and value in (0, 1):
        return bool(value)  # the contest writes TIE_EMBEDDINGS=1
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind is str and not isinstance(value, str):
        return str(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UsageError(f"{where} = {value!r}: expected {getattr(kind, '__name__', kind)}")
    return value


def parse_value(text: str) -> Any:
    """A TOML value where ``text`` is one (``8``, ``0.03``, ``true``, ``[1, 2]``), else ``text`` itself."""
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text


def set_key(tree: dict[str, Any], dotted: str, value: Any) -> None:
    """Sets ``section.key`` in a tree of tables."""
    section, dot, key = dotted.partition(".")
    if not dot or "." in key:
        raise UsageError(f"{dotted!r}: expected section.key, for example train.seed")
    table = tree.setdefault(section, {})
    if not isinstance(table, dict):
        raise UsageError(f"{section!r} is a value, not a section")
    table[key] = value


def parse_set(option: str) -> tuple[str, Any]:
    """``"optim.matrix_lr=0.03"`` -> ``("optim.matrix_lr", 0.03)``."""
    key, equals, text = option.partition("=")
    if not equals:
        raise UsageError(f"--set {option}: expected section.key=value, for example optim.matrix_lr=0.03")
    return key.strip().replace("-", "_"), parse_value(text.strip())
