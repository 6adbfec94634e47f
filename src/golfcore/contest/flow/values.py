"""The values of the abstract run: which data they stem from, which objects they may be, and constants if known.

A *label* says one thing about the origin of a value:

- ``VAL``, ``TRAIN``: tokens of the validation or training split; ``TGT``: tokens that are about to be predicted
- ``m:7``: parameters of object 7; ``v:7:2``: a copy of them, after two updates
- ``loss:3``, ``acc:4``: a loss of tokens; the sum that losses were added to
- ``rd:5``: a look-up in a table filled from tokens; ``tkey``: a look-up with the true token hashed into the key
- ``cls``: a property of the true token; ``enc``: bytes of text; ``bytes``: bytes of the tokens that are scored
- ``bkey``: a look-up with such bytes; ``blob``: read from a file that holds no shard; ``paid``: a comparison with it
- ``oracle``: the better of two losses; ``sel:6``: chosen by comparing scores; ``stat``: statistics of validation tokens
- ``part``: a constant part of the validation tokens; ``i:9``: depends on the iteration of loop 9; ``src``: a stream
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

UNKNOWN: Any = type("Unknown", (), {"__repr__": lambda self: "UNKNOWN"})()
NONE: frozenset[str] = frozenset()
DATA = frozenset({"VAL", "TRAIN", "TGT"})
MAX_OBJECTS = 24
MAX_LABELS = 120  # of a value; beyond that the labels of older loops are forgotten


@dataclass(slots=True, eq=False)
class Thing:
    """An object of the abstract run: an instance, optimizer, tensor, container, function, class or module."""

    id: int
    kind: str
    site: tuple[str, int]
    loops: tuple[tuple[int, int], ...] = ()  # where it was made: loops and their iterations
    labels: set[str] = field(default_factory=set)
    attributes: dict[str, Value] = field(default_factory=dict)
    element: Value | None = None  # what a container holds, joined
    node: Any = None  # of a function or class
    scope: Any = None
    updates: list[Event] = field(default_factory=list)  # of parameters
    writes: list[Event] = field(default_factory=list)  # into a table
    reads: list[Event] = field(default_factory=list)
    adds: list[Event] = field(default_factory=list)  # of losses
    parameters: tuple[int, ...] = ()  # of an optimizer: ids of things that it steps
    scored: bool = False  # whether a sum of losses became bits per byte


@dataclass(slots=True, eq=False)
class Event:
    """Something that happened in the abstract run, at a place and in an order."""

    kind: str
    order: int
    site: tuple[str, int]
    loops: tuple[tuple[int, int], ...]
    labels: frozenset[str] = NONE
    things: tuple[int, ...] = ()
    losses: tuple[int, ...] = ()
    note: str = ""
    unsure: frozenset[int] = frozenset()  # loops within which a condition of data may pass it by


@dataclass(slots=True, eq=False)
class Value:
    """A value: labels of its origin, things it may be, a constant if it is known, elements if it is a tuple."""

    labels: frozenset[str] = NONE
    const: Any = UNKNOWN
    things: tuple[Thing, ...] = ()
    items: tuple[Value, ...] | None = None

    def all_labels(self) -> frozenset[str]:
        """Return the labels of the value and of what it contains."""
        labels = self.labels
        for thing in self.things:
            if thing.labels:
                labels = labels | thing.labels
            if thing.element is not None and thing.kind in ("list", "dict", "generator"):
                labels = labels | thing.element.labels
        for item in self.items or ():
            labels = labels | item.all_labels()
        return labels

    def with_labels(self, *labels: str) -> Value:
        """Return the same value with more labels."""
        return Value(self.labels.union(labels), self.const, self.things, self.items)

    def through(self, label: str) -> Value:
        """Return the same value with a label on it and on the elements of a tuple."""
        items = None if self.items is None else tuple(item.through(label) for item in self.items)
        return Value(self.labels | {label}, self.const, self.things, items)

    def without(self, *labels: str) -> Value:
        """Return the same value with fewer labels."""
        return Value(self.labels.difference(labels), self.const, self.things, self.items)


@dataclass(slots=True, eq=False)
class Call:
    """A call of a function or method: what it is given, and the labels of all of that."""

    arguments: list[Value]
    named: dict[str, Value]
    labels: frozenset[str]
    path: str = ""  # of a function of a library
    base: Value = field(default_factory=Value)  # of a method
    node: Any = None


NOTHING = Value(const=None)


def join(*values: Value) -> Value:
    """Return a value that may be any of several."""
    if len(values) == 1:
        return values[0]
    labels: frozenset[str] = NONE
    things: dict[int, Thing] = {}
    for value in values:
        labels |= value.labels
        for thing in value.things[:MAX_OBJECTS]:
            things[thing.id] = thing
    const = values[0].const if values and all(_same(v.const, values[0].const) for v in values) else UNKNOWN
    items = None
    shapes = {len(v.items) if v.items is not None else -1 for v in values}
    if len(shapes) == 1 and -1 not in shapes:
        items = tuple(join(*parts) for parts in zip(*(v.items or () for v in values), strict=True))
    elif shapes != {-1}:
        for value in values:
            labels |= value.all_labels()
            for item in value.items or ():
                things.update((thing.id, thing) for thing in item.things)
    return Value(bounded(labels), const, tuple(things.values())[:MAX_OBJECTS], items)


def mixed(*values: Value) -> Value:
    """Return the result of a computation with several values: its origin is all of theirs."""
    labels: frozenset[str] = NONE
    for value in values:
        labels |= value.all_labels()
    return Value(bounded(frozenset(label for label in labels if not label.startswith("fn:"))))


def bounded(labels: frozenset[str]) -> frozenset[str]:
    """Return labels without those of older loops if there are too many."""
    if len(labels) <= MAX_LABELS:
        return labels
    loops = sorted((label for label in labels if label.startswith("i:")), key=lambda label: int(label[2:]))
    return labels.difference(loops[: -MAX_LABELS // 4])


def _same(a: Any, b: Any) -> bool:
    return a is b or (type(a) is type(b) and bool(a == b))


def has(labels: frozenset[str], prefix: str) -> bool:
    """Return whether a label begins with a prefix."""
    return any(label.startswith(prefix) for label in labels)


def numbers(labels: frozenset[str], prefix: str) -> list[int]:
    """Return the numbers of the labels with a prefix: ``m:7`` with prefix ``m:`` gives 7."""
    return [int(label[len(prefix) :].split(":")[0]) for label in labels if label.startswith(prefix)]
