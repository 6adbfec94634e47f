"""Evaluate comprehensions of an abstract run."""

from __future__ import annotations

import ast

from golfcore.contest.flow.state import Scope
from golfcore.contest.flow.statements import Statements
from golfcore.contest.flow.values import Value, has, join


class Comprehensions(Statements):
    """Comprehensions, and sums of the losses that they list."""

    def comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp, scope: Scope) -> Value:
        """Return what a comprehension lists: a container whose elements are joined."""
        inside = Scope(scope.file, scope, "function", targets=scope.targets, shifted=scope.shifted)
        runs = []
        for part in node.generators:
            iterable = self.value(part.iter, inside)
            self.runs += 1
            runs.append(self.runs)
            self.loops.append((self.runs, 0))
            self.unsure_at.append(self.unsure)
            self.bind(
                part.target,
                self.element(iterable, 0 if len(node.generators) == 1 else None).through(f"i:{self.runs}"),
                inside,
            )
            for test in part.ifs:
                self.value(test, inside)
        kind = "dict" if isinstance(node, ast.DictComp) else "list"
        if isinstance(node, ast.DictComp):
            self.value(node.key, inside)
            element = self.value(node.value, inside)
        else:
            element = self.value(node.elt, inside)
        for _ in runs:
            self.leave()
        thing = self.thing(kind)
        thing.element = join(element)
        labels = element.all_labels()
        if has(labels, "loss:"):
            self.add(thing, labels)
        return Value(things=(thing,))

    x_ListComp = x_SetComp = x_GeneratorExp = x_DictComp = comprehension
