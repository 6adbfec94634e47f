"""Call functions, methods and classes of an entry in an abstract run."""

from __future__ import annotations

import ast
from typing import Any

from golfcore.contest.flow.methods import Methods
from golfcore.contest.flow.state import MAX_CALLS, Scope, is_validation_name, known
from golfcore.contest.flow.uses import targets_of
from golfcore.contest.flow.values import DATA, NONE, NOTHING, Thing, Value, has, join, mixed

_MODULE_BASES = ("Module", "LightningModule", "PreTrainedModel")
MAX_MEMORY = 4_000


class Calls(Methods):
    """Calls of what an entry defines; what libraries define is in ``methods`` and ``library``."""

    def x_Call(self, node: ast.Call, scope: Scope) -> Value:
        arguments: list[Value] = []
        for part in node.args:
            given = self.value(part, scope)
            spread = isinstance(part, ast.Starred) and given.items is not None
            arguments += given.items or () if spread else (given,)
        named = {k.arg or "**": self.value(k.value, scope) for k in node.keywords}
        function = node.func
        site = (scope.file, node.lineno)
        if isinstance(function, ast.Attribute):
            base = self.value(function.value, scope)
            self.site = site
            self.names_called.add(function.attr)
            members = [value for thing in base.things if (value := self.member(thing, function.attr)) is not None]
            if members:
                return self.call(join(*members), arguments, named, node)
            if not has(base.labels, "fn:"):
                return self.method(base, function.attr, arguments, named, node, scope)
            return self.library(self.attribute(base, function.attr), arguments, named, node, scope)
        called = self.value(function, scope)
        self.site = site
        if isinstance(function, ast.Name) and function.id == "super" and not called.things:
            return self.parent(scope)
        return self.call(called, arguments, named, node, scope)

    def parent(self, scope: Scope) -> Value:
        """Return what ``super()`` is: nothing known, so that what a library class does is not followed."""
        return Value(frozenset({"fn:super"}))

    def call(
        self,
        function: Value,
        arguments: list[Value],
        named: dict[str, Value],
        node: ast.Call | None,
        scope: Scope | None = None,
    ) -> Value:
        """Return the result of calling a value."""
        callable_things = [
            t for t in function.things if t.kind in ("function", "method", "class", "model", "instance", "partial")
        ]
        if not callable_things:
            return self.library(function, arguments, named, node, scope)
        return join(*(self.invoke(thing, arguments, named, node, scope) for thing in callable_things[:6]))

    def invoke(
        self, thing: Thing, arguments: list[Value], named: dict[str, Value], node: ast.Call | None, scope: Scope | None
    ) -> Value:
        """Call one object: a function, a bound method, a class, a model, or an instance with ``__call__``."""
        if thing.kind == "function":
            return self.function(thing, arguments, named)
        if thing.kind == "method":
            owner = Value(things=(thing.scope,))
            static = any(getattr(d, "id", "") == "staticmethod" for d in getattr(thing.node.node, "decorator_list", []))
            return self.function(thing.node, arguments if static else [owner, *arguments], named)
        if thing.kind == "partial":
            assert thing.element is not None
            return self.call(thing.element, [*(thing.attributes["args"].items or ()), *arguments], named, node, scope)
        if thing.kind == "class":
            return self.construct(thing, arguments, named, node, scope)
        for name in ("forward", "__call__"):
            method = self.member(thing, name)
            if method is not None:
                result = self.call(method, arguments, named, node, scope)
                return self.ran(thing, result, arguments, named)
        return self.ran(thing, mixed(*arguments, *named.values()), arguments, named)

    def ran(self, thing: Thing, result: Value, arguments: list[Value], named: dict[str, Value]) -> Value:
        """Return what a model gave, with the model in its labels; a model that is given targets gives a loss."""
        if thing.kind != "model":
            return result
        given = mixed(*arguments, *named.values()).labels
        self.run_hooks(given)
        result = result.with_labels(f"m:{thing.id}")
        own = result.all_labels()
        if self.member(thing, "forward") is None and "TGT" in given and not has(own, "loss:"):
            return self.loss(own)
        return result if "TGT" not in own or has(own, "loss:") else result.without("TGT")

    def run_hooks(self, given: frozenset[str]) -> None:
        """Run the forward hooks once for each kind of data that models are given."""
        data = given & frozenset({"VAL", "TRAIN"})
        for hook in self.hooks[:12]:
            key = ("hook", id(hook.things[0]) if hook.things else 0, data)
            if key in self.memory or not data:
                continue
            self.memory[key] = NOTHING
            inside = Value(data | {"act"})
            self.call(hook, [Value(), Value(items=(inside,)), inside], {}, None)

    def construct(
        self, thing: Thing, arguments: list[Value], named: dict[str, Value], node: ast.Call | None, scope: Scope | None
    ) -> Value:
        """Make an instance of a class of the entry."""
        bases = self.bases(thing)
        given = mixed(*arguments, *named.values()).labels
        if any("ptimizer" in base for base in bases) or (has(given, "m:") and _is_optimizer(thing.node.name)):
            return self.optimizer(thing.node.name, arguments, named)
        kind = "model" if any(base.endswith(_MODULE_BASES) for base in bases) else "instance"
        made = self.thing(kind, node=thing.node, scope=thing)
        value = Value(things=(made,))
        init = self.member(made, "__init__")
        if init is not None:
            self.call(init, arguments, named, node, scope)
            return value
        fields = [
            s.target.id for s in thing.node.body if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)
        ]
        made.attributes.update(zip(fields, arguments, strict=False))
        made.attributes.update(named)
        return value

    def bases(self, thing: Thing) -> list[str]:
        """Return the dotted names of all classes that a class derives from, those of libraries too."""
        names = [ast.unparse(base)[:200] for base in thing.node.bases]
        for number in thing.parameters:
            names += self.bases(self.things[number]) if self.things[number].node is not thing.node else []
        return names[:50]

    def function(self, thing: Thing, arguments: list[Value], named: dict[str, Value]) -> Value:
        """Run the body of a function, unless it is running already or was run with the same arguments to no effect."""
        node = thing.node
        if self.depth >= MAX_CALLS or self.active.count(thing.id) > 1:
            return mixed(*arguments, *named.values()).without("TGT")
        key = (thing.id, tuple(map(_signature, arguments)), tuple((k, _signature(v)) for k, v in sorted(named.items())))
        if key in self.memory:
            return self.memory[key]
        scope = Scope(thing.scope.file, thing.scope, "function")
        body = node.body if isinstance(node.body, list) else [ast.Return(node.body, lineno=node.lineno, col_offset=0)]
        uses = self.memory.get(("uses", id(node)))
        if uses is None:
            uses = self.memory[("uses", id(node))] = Value(const=targets_of(body))
        scope.targets, scope.shifted = uses.const
        self.parameters(node.args, arguments, named, scope, thing)
        before, site = self.effects, self.site
        self.depth += 1
        self.active.append(thing.id)
        control, self.control = self.control, []
        try:
            self.block(body, scope)
        finally:
            self.depth -= 1
            self.active.pop()
            self.control = control
        self.site = site
        result = join(*scope.returned) if scope.returned else NOTHING
        if scope.yielded:
            made = self.thing("generator")
            made.element = join(*scope.yielded)
            result = Value(things=(made,))
        if self.effects == before and len(self.memory) < MAX_MEMORY:
            self.memory[key] = result
        return result

    def parameters(
        self, args: ast.arguments, arguments: list[Value], named: dict[str, Value], scope: Scope, thing: Thing
    ) -> None:
        """Bind the parameters of a function to what it is given, to defaults, or to nothing known."""
        names = [a.arg for a in (*args.posonlyargs, *args.args)]
        bound = dict(zip(names, arguments, strict=False))
        extra = arguments[len(names) :]
        bound |= {name: value for name, value in named.items() if name != "**"}
        rest = named.get("**")
        defaults = dict(zip(reversed(names), reversed(args.defaults), strict=False))
        defaults |= {a.arg: d for a, d in zip(args.kwonlyargs, args.kw_defaults, strict=True) if d is not None}
        for name in (*names, *(a.arg for a in args.kwonlyargs)):
            if name in bound:
                value = bound[name]
            elif rest is not None and rest.things and name in rest.things[0].attributes:
                value = rest.things[0].attributes[name]
            elif name in defaults:
                value = self.value(defaults[name], thing.scope)
            else:
                value = Value(frozenset({"VAL"}) if is_validation_name(name) else NONE)
            if not value.things and not value.labels and not known(value) and value.items is None:
                value = self.by_name(name) or value
            scope.names[name] = value
        if args.vararg is not None:
            scope.names[args.vararg.arg] = Value(items=tuple(extra[:32]))
        if args.kwarg is not None:
            made = self.thing("dict")
            made.attributes = {k: v for k, v in named.items() if k not in names}
            scope.names[args.kwarg.arg] = Value(things=(made,))


def _signature(value: Value) -> Any:
    const = value.const if isinstance(value.const, (int, float, str, bool, type(None))) else None
    inner = tuple(_signature(item) for item in value.items) if value.items is not None else None
    return (value.all_labels(), known(value), const, tuple(thing.id for thing in value.things), inner)


def _is_optimizer(name: str) -> bool:
    return any(word in name.lower() for word in ("adam", "sgd", "muon", "optim", "lion", "shampoo", "lbfgs"))


__all__ = ["DATA", "Calls"]
