"""Run definitions and imports of an abstract run."""

from __future__ import annotations

import ast

from golfcore.contest.flow.calls import Calls
from golfcore.contest.flow.state import Scope, known
from golfcore.contest.flow.values import Value, has, join


class Definitions(Calls):
    """Functions, classes and imports."""

    def s_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef, scope: Scope) -> None:
        made = Value(things=(self.thing("function", node=node, scope=scope),))
        scope.holder(node.name).names[node.name] = made

    s_AsyncFunctionDef = s_FunctionDef

    def s_ClassDef(self, node: ast.ClassDef, scope: Scope) -> None:
        bases = [self.value(base, scope) for base in node.bases]
        thing = self.thing("class", node=node, scope=scope)
        thing.parameters = tuple(t.id for base in bases for t in base.things if t.kind == "class")
        inside = Scope(scope.file, scope, "class")
        self.block(node.body, inside)
        thing.attributes = inside.names
        scope.names[node.name] = Value(things=(thing,))

    def s_Import(self, node: ast.Import, scope: Scope) -> None:
        for alias in node.names:
            name = alias.name if alias.asname else alias.name.partition(".")[0]
            scope.names[alias.asname or name] = self.module(name)

    def s_ImportFrom(self, node: ast.ImportFrom, scope: Scope) -> None:
        base = self.module("." * node.level + (node.module or ""))
        for alias in node.names:
            if alias.name == "*":
                for thing in base.things:
                    scope.names.update(thing.scope.names if thing.scope is not None else {})
            else:
                found = self.attribute(base, alias.name)
                if not found.things and not has(found.labels, "fn:") and (base.things or not node.module):
                    found = join(found, self.module(alias.name)) if not known(found) else found
                scope.names[alias.asname or alias.name] = found
