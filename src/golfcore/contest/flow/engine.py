"""Run the programs of an entry abstractly: nothing is executed, and the work is bounded."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field

from golfcore.contest.flow.comprehensions import Comprehensions
from golfcore.contest.flow.state import Scope, SourceFile, Stop, is_validation_name
from golfcore.contest.flow.uses import targets_of
from golfcore.contest.flow.values import NONE, Event, Thing, Value

FORKED = 40  # functions that nothing called and that are run at the end


class Engine(Comprehensions):
    """An abstract run of the programs of an entry."""

    def module(self, name: str) -> Value:
        """Return a module: of the entry if it has one of this name, else of a library."""
        stem = name.lstrip(".").partition(".")[0] if not name.startswith(".") else name.lstrip(".")
        source = next((s for s in self.sources.values() if s.name in (f"{stem}.py", f"{stem}/__init__.py")), None)
        if source is None:
            tail = name.lstrip(".").rpartition(".")[2]
            source = next((s for s in self.sources.values() if s.name.endswith(f"/{tail}.py")), None) if tail else None
        if source is None:
            return Value(frozenset({f"fn:{name.lstrip('.')}"}))
        return Value(things=(self.imported(source, "module"),))

    def imported(self, source: SourceFile, name: str) -> Thing:
        """Run a file's statements once, and return its module."""
        if source.name not in self.modules:
            scope = Scope(source.name)
            plain = [
                n for n in source.tree.body if not isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
            ]
            scope.targets, scope.shifted = targets_of(plain)
            scope.names["__name__"] = Value(NONE, name)
            made = self.thing("module", scope=scope)
            self.modules[source.name] = made
            site, loops, unsure = self.site, self.loops, self.unsure_at
            self.loops, self.unsure_at = [], []
            self.block(source.tree.body, scope)
            self.site, self.loops, self.unsure_at = site, loops, unsure
        return self.modules[source.name]

    def uncalled(self, source: SourceFile) -> None:
        """Run the functions of a file that nothing called, with nothing known of their arguments."""
        scope = self.modules[source.name].scope
        called = set(self.names_called)
        for value in list(scope.names.values())[:400]:
            for thing in value.things:
                if thing.kind != "function" or not isinstance(thing.node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    continue
                if thing.scope is scope and thing.node.name not in called:
                    arguments = [
                        Value(frozenset({"VAL"}) if is_validation_name(a.arg) else NONE) for a in thing.node.args.args
                    ]
                    self.function(thing, arguments, {})


@dataclass
class Trace:
    """An abstract run that ended: its engine, whether it saw everything, and the files that it entered."""

    engine: Engine
    complete: bool = True
    started: list[str] = field(default_factory=list)

    @property
    def events(self) -> list[Event]:
        return self.engine.events


def trace(sources: dict[str, SourceFile], start: str, settings: dict[str, str], *, loose: bool = False) -> Trace:
    """Run a file of an entry as a program, with the files that it imports.

    Args:
        sources: The Python files of the entry by name.
        start: The file that is run.
        settings: Variables of the environment, as logs and scripts tell them.
        loose: Whether switches of the environment may be either way, so that code which is switched off is seen too.
    """
    engine = Engine(sources, settings, loose=loose)
    result = Trace(engine)
    try:
        engine.imported(sources[start], "__main__")
        if not any(event.kind == "add" for event in engine.events):
            engine.uncalled(sources[start])
    except (Stop, RecursionError):
        result.complete = False
    result.started = list(engine.modules)
    return result
