"""Hold the state of an abstract run: scopes, objects, events in their order, and the budget."""

from __future__ import annotations

import ast
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from golfcore.contest.flow.values import NONE, UNKNOWN, Event, Thing, Value

MAX_STEPS = 160_000  # expressions that one run looks at; 1,500 lines need about 60,000
MAX_CALLS = 14  # functions within functions
MAX_NESTED = 90  # expressions within expressions

_TARGET = re.compile(
    r"(?:^|_)(?:y|yb|ys|tgt|tgts|target|targets|label|labels|true|actual|gold|answer|truth|nxt|next_token|next_tok|next_id)"
    r"(?:_|s?$|\d|b$)",
    re.IGNORECASE,
)
_VALIDATION = re.compile(
    r"^(?:self\.)?(?:val|valid|validation)(?:_|$)(?!loss|bpb|every|batch|seq|time|log|stride|len|step|interval)"
)
_SPLIT = re.compile(r"(?:^|[/_.*-])(val|valid|validation|train|training)(?=[/_.*-]|\d|$)")
_FILE = re.compile(r"[*/]|\.(?:bin|npy|npz|pt|jsonl?|txt|parquet|idx|tokens)\b|fineweb")


class Stop(Exception):
    """Raised when the budget of an abstract run is used up."""


@dataclass(slots=True, eq=False)
class Scope:
    """The names of a module, class or function."""

    file: str
    parent: Scope | None = None
    kind: str = "module"
    names: dict[str, Value] = field(default_factory=dict)
    born: dict[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    exports: set[str] = field(default_factory=set)  # names declared global or nonlocal
    targets: frozenset[str] = NONE  # names that are predicted: see ``uses``
    shifted: frozenset[str] = NONE
    returned: list[Value] = field(default_factory=list)
    yielded: list[Value] = field(default_factory=list)

    def find(self, name: str) -> Value | None:
        """Return the value of a name here or in an enclosing scope."""
        scope: Scope | None = self
        first = True
        while scope is not None:
            if name in scope.names and (first or scope.kind != "class"):
                return scope.names[name]
            scope, first = scope.parent, False
        return None

    def holder(self, name: str) -> Scope:
        """Return the scope that an assignment to ``name`` changes."""
        if name not in self.exports:
            return self
        scope = self.parent
        while scope is not None and name not in scope.names and scope.parent is not None:
            scope = scope.parent
        return scope or self


@dataclass(slots=True, eq=False)
class SourceFile:
    """A Python file of an entry, packed code expanded: its syntax tree, and the file and lines that it is shown as."""

    name: str
    text: str
    tree: ast.Module


@dataclass(slots=True)
class Loss:
    """A loss of tokens: when the model was run, and on what it depends."""

    order: int
    labels: frozenset[str]
    site: tuple[str, int]
    loops: tuple[tuple[int, int], ...]
    updates: tuple[Event, ...]  # of the parameters that it depends on, up to then
    target: frozenset[str] = NONE  # labels of the tokens that are predicted

    @property
    def of_validation(self) -> bool:
        return "VAL" in self.labels


class State(ABC):
    """The state of an abstract run; the classes that derive from it evaluate expressions and statements."""

    def __init__(self, sources: dict[str, SourceFile], settings: dict[str, str], *, loose: bool = False) -> None:
        self.sources = sources
        self.settings = settings  # of the environment, as logs and scripts tell them
        self.loose = loose  # whether switches of the environment may be either way
        self.order = self.steps = self.depth = self.nested = self.effects = 0
        self.things: list[Thing] = []
        self.events: list[Event] = []
        self.losses: list[Loss] = []
        self.loops: list[tuple[int, int]] = []
        self.driving: set[int] = set()  # loops whose iterations always have data of their own
        self.runs = 0
        self.sums_of: dict[int, set[int]] = {}  # the sums that a loss was added to
        self.pending: list[int] = []  # losses whose gradients are there
        self.sides: frozenset[str] = NONE  # the side of a window that they are of
        self.stepped = False  # whether an optimizer has used them
        self.hooks: list[Value] = []
        self.disk: dict[str, frozenset[str]] = {}
        self.modules: dict[str, Thing] = {}
        self.control: list[frozenset[str]] = []
        self.unsure = 0  # conditions of data that may be either way, around the present place
        self.unsure_at: list[int] = []  # the same at the entry of each loop
        self.active: list[int] = []
        self.memory: dict[Any, Value] = {}
        self.switched_off = False
        self.site: tuple[str, int] = ("", 0)
        self.names_called: set[str] = set()
        self.unbound: dict[str, Thing] = {}  # objects whose names the entry does not define
        self.marked: dict[str, tuple[str, int]] = {}  # where a label was first given
        self.reserved = False  # whether a program subtracts something from its clock

    # --- evaluated by the classes below -------------------------------------------------------------------------------

    @abstractmethod
    def value(self, node: ast.AST | None, scope: Scope) -> Value: ...

    @abstractmethod
    def call(
        self, function: Value, arguments: list[Value], named: dict[str, Value], node: ast.Call | None
    ) -> Value: ...

    @abstractmethod
    def block(self, body: list[ast.stmt], scope: Scope) -> str: ...

    @abstractmethod
    def run_hooks(self, given: frozenset[str]) -> None: ...

    @abstractmethod
    def add(self, thing: Thing, labels: frozenset[str]) -> None: ...

    @abstractmethod
    def reset(self, parameters: Value) -> None: ...

    @abstractmethod
    def element(self, value: Value, iteration: int | None) -> Value: ...

    @abstractmethod
    def bind(self, target: ast.AST, value: Value, scope: Scope) -> None: ...

    # --- objects and events -------------------------------------------------------------------------------------------

    def thing(self, kind: str, **more: Any) -> Thing:
        """Make an object of the abstract run at the present place."""
        made = Thing(len(self.things), kind, self.site, tuple(self.loops), **more)
        self.things.append(made)
        return made

    def event(
        self,
        kind: str,
        *,
        things: tuple[int, ...] = (),
        losses: tuple[int, ...] = (),
        labels: frozenset[str] = NONE,
        note: str = "",
    ) -> Event:
        """Record that something happened now."""
        self.order += 1
        self.effects += 1
        made = Event(kind, self.order, self.site, tuple(self.loops), labels, things, losses, note)
        self.events.append(made)
        return made

    def loss(self, labels: frozenset[str], target: frozenset[str] = NONE) -> Value:
        """Make a loss of tokens that depends on these labels; ``target`` has those of the tokens that are predicted."""
        self.order += 1
        self.effects += 1
        updates: dict[int, Event] = {}
        for label in labels:
            if label.startswith("m:"):
                updates.update((e.order, e) for e in self.things[int(label[2:])].updates)
            elif label.startswith("ad:"):
                event = self.events[int(label[3:])]
                updates[event.order] = event
        number = len(self.losses)
        site, loops = self.site, tuple(self.loops)
        self.losses.append(Loss(self.order, labels, site, loops, tuple(updates.values()), target or labels))
        return Value(labels | {f"loss:{number}"})

    def update(self, parameters: tuple[int, ...], losses: tuple[int, ...], kind: str, labels: frozenset[str]) -> None:
        """Record that parameters change because of losses, or because of data."""
        event = self.event(kind, things=parameters, losses=losses, labels=labels)
        event.unsure = frozenset(
            run for (run, _), before in zip(self.loops, self.unsure_at, strict=True) if before < self.unsure
        )
        for number in parameters:
            thing = self.things[number]
            if len(thing.updates) < 64:
                thing.updates.append(event)

    def clocked(self, event: Event) -> bool:
        """Return whether an event lies in a while loop, as the steps of a training loop do."""
        return any(run in self.driving for run, _ in event.loops)

    def iteration_labels(self) -> frozenset[str]:
        """Return the labels of the loops that run now."""
        return frozenset(f"i:{loop}" for loop, _ in self.loops)

    def tick(self, node: ast.AST) -> None:
        """Count a step against the budget."""
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise Stop


def split_labels(text: str) -> frozenset[str]:
    """Return VAL or TRAIN if a string names files of that split."""
    if len(text) > 2_000 or not _FILE.search(text):
        return NONE
    for part in reversed(text.split("/")):
        found = {word[:3] for word in _SPLIT.findall(part)}
        if found:
            return frozenset({"VAL"} if found == {"val"} else {"TRAIN"}) if len(found) == 1 else NONE
    return NONE


def is_target_name(name: str) -> bool:
    """Return whether a name is one that programs give to the tokens that are predicted."""
    return bool(_TARGET.search(name))


def is_validation_name(name: str) -> bool:
    """Return whether a name is one that programs give to validation tokens."""
    return bool(_VALIDATION.match(name))


def known(value: Value) -> bool:
    """Return whether a value is a constant."""
    return value.const is not UNKNOWN
