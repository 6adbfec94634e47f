"""Evaluate expressions of an abstract run."""

from __future__ import annotations

import ast
import builtins
import math
import re
from typing import Any

from golfcore.contest.flow.operators import constant_part, first_only, folded, is_shifted, iterations, paid, side
from golfcore.contest.flow.state import (
    MAX_NESTED,
    Scope,
    State,
    is_validation_name,
    known,
    split_labels,
)
from golfcore.contest.flow.values import DATA, NONE, NOTHING, UNKNOWN, Thing, Value, bounded, has, join, mixed, numbers

_BUILTINS = frozenset(dir(builtins))
_MODEL = re.compile(r"^(?:\w+_)?(?:model|net|gpt|lm|teacher|student)(?:_\w+)?$|^other$|^GPT$")
_OPTIMIZER = re.compile(r"^(?:\w+_)?(?:opt|optim|optimizer)\d?(?:_\w+)?$")
_HASHING = (ast.BitXor, ast.Mod, ast.BitAnd)
_SIZES = {"shape", "dtype", "device", "ndim", "itemsize", "is_cuda", "nbytes"}
_SAME = {"data", "module", "_orig_mod", "T", "mT", "real", "flat"}


MARKS = frozenset({"tkey", "bkey", "cls", "oracle", "paid", "part"})


class Expressions(State):
    """Evaluation of expressions."""

    def value(self, node: ast.AST | None, scope: Scope) -> Value:
        """Return the value of an expression."""
        if node is None:
            return NOTHING
        self.tick(node)
        method = getattr(self, "x_" + type(node).__name__, None)
        if method is None or self.nested > MAX_NESTED:
            return Value()
        self.nested += 1
        try:
            line = getattr(node, "lineno", 0)
            if line:
                self.site = (scope.file, line)
            result: Value = method(node, scope)
            return result
        finally:
            self.nested -= 1

    def x_Constant(self, node: ast.Constant, scope: Scope) -> Value:
        const = node.value
        if isinstance(const, str):
            return Value(split_labels(const), const)
        if isinstance(const, float) and (abs(const - math.log(2)) < 1e-3 or abs(const - 1 / math.log(2)) < 1e-3):
            return Value(frozenset({"ln2"}), const)
        return Value(NONE, const)

    def x_JoinedStr(self, node: ast.JoinedStr, scope: Scope) -> Value:
        parts = [self.value(p.value if isinstance(p, ast.FormattedValue) else p, scope) for p in node.values]
        if all(known(part) for part in parts):
            text = "".join(str(part.const) for part in parts)[:2_000]
            return Value(split_labels(text) | mixed(*parts).labels, text)
        return mixed(*parts)

    def x_Name(self, node: ast.Name, scope: Scope) -> Value:
        value = scope.find(node.id)
        if value is None:
            return self.builtin(node.id)
        if node.id in scope.targets and "TGT" not in value.labels:
            labels = value.all_labels()
            if "VAL" in labels and not has(labels, "m:"):  # what a model made of tokens is no token, whatever its name
                return value.with_labels("TGT")
        return value

    def builtin(self, name: str) -> Value:
        """Return the value of a name that no scope has: a builtin, a library, or an object by what it is called."""
        if name in ("__file__", "__doc__"):
            return Value(NONE, name)
        return self.by_name(name) or Value(frozenset({f"fn:{name}"}))

    def by_name(self, name: str) -> Value | None:
        """Return a model or an optimizer if a name that nothing is known of is one that programs give to them."""
        if name in _BUILTINS:
            return None
        kind = "optimizer" if _OPTIMIZER.search(name) else "model" if _MODEL.search(name) else ""
        return Value(things=(self.free(name, kind),)) if kind else None

    def free(self, name: str, kind: str) -> Thing:
        """Return the object that a name stands for which the entry does not define."""
        if name not in self.unbound:
            self.unbound[name] = self.thing(kind)
            self.unbound[name].element = Value()  # it holds something: it is no container that was just made
        return self.unbound[name]

    def x_Attribute(self, node: ast.Attribute, scope: Scope) -> Value:
        base = self.value(node.value, scope)
        return self.attribute(base, node.attr)

    def attribute(self, base: Value, name: str) -> Value:
        """Return an attribute of a value: of an object if it is known, else something of the same origin."""
        found = [value for thing in base.things if (value := self.member(thing, name)) is not None]
        if found:
            return join(*found)
        if any(label.startswith("fn:") for label in base.labels):
            return Value(frozenset(f"{label}.{name}" if label.startswith("fn:") else label for label in base.labels))
        if name in _SIZES:
            return Value(base.labels & frozenset({"part"}) | size_labels(base.all_labels()))
        if name == "grad":
            leaves = tuple(numbers(base.labels, "m:"))
            self.event("step", things=leaves, losses=tuple(self.pending), labels=base.labels)
            losses = {f"gl:{number}" for number in self.pending}
            return Value(base.labels | losses | {"grad", f"ad:{len(self.events) - 1}"})
        if name in _SAME and base.things:
            return base
        labels = base.all_labels()
        for thing in base.things:
            if thing.kind == "model":
                labels |= {f"m:{thing.id}"}
        if is_validation_name(name) and not labels & DATA:
            labels |= {"VAL"}
        return Value(labels, things=base.things if name in _SAME else ())

    def member(self, thing: Any, name: str) -> Value | None:
        """Return an attribute of an object, of its class, or of the classes that its class derives from."""
        if name in thing.attributes:
            value: Value = thing.attributes[name]
            return value
        if thing.kind == "module" and thing.scope is not None:
            found: Value | None = thing.scope.names.get(name)
            return found
        owner = thing if thing.kind == "class" else thing.scope if thing.kind in ("instance", "model") else None
        seen = 0
        while owner is not None and owner.kind == "class" and seen < 8:
            if name in owner.attributes:
                inherited: Value = owner.attributes[name]
                if thing.kind != "class" and any(t.kind == "function" for t in inherited.things):
                    return self.bound(inherited, thing)
                return inherited
            owner, seen = next((t for base in owner.parameters for t in [self.things[base]]), None), seen + 1
        return None

    def bound(self, function: Value, thing: Any) -> Value:
        """Return a method that is bound to an object."""
        made = [self.thing("method", node=t, scope=thing) for t in function.things if t.kind == "function"]
        decorated = {"property", "cached_property"}
        if made and any(
            getattr(d, "id", "") in decorated for d in getattr(function.things[0].node, "decorator_list", ())
        ):
            return self.call(Value(things=tuple(made)), [], {}, None)
        return Value(things=tuple(made))

    def x_Subscript(self, node: ast.Subscript, scope: Scope) -> Value:
        base = self.value(node.value, scope)
        key = self.value(node.slice, scope)
        result = self.item(base, key, node.slice)
        if "names" in base.all_labels() and isinstance(node.value, (ast.Name, ast.Call)) and first_only(node.slice):
            result = result.with_labels("part")
        if "VAL" in result.labels and not has(result.labels, "m:") and is_shifted(node, scope):
            result = result.with_labels("TGT")
        return result

    def x_Slice(self, node: ast.Slice, scope: Scope) -> Value:
        parts = [self.value(part, scope) for part in (node.lower, node.upper, node.step) if part is not None]
        return mixed(*parts) if parts else Value()

    def item(self, base: Value, key: Value, node: ast.AST | None = None) -> Value:
        """Return an element, row or slice of a value at a key."""
        path = next((label for label in base.labels if label.startswith("fn:")), "")
        if path and not base.things and "environ" not in path:
            base = Value(things=(self.free(path, "tensor"),))
        methods = [m for t in base.things if t.kind == "instance" and (m := self.member(t, "__getitem__")) is not None]
        if methods:
            return self.call(join(*methods), [key], {}, None)
        if base.items is not None and isinstance(key.const, int) and -len(base.items) <= key.const < len(base.items):
            return base.items[key.const]
        labels = base.all_labels()
        at = key.all_labels()
        named = [t.attributes[str(key.const)] for t in base.things if known(key) and str(key.const) in t.attributes]
        if named:
            return join(*named)
        held = [thing.element for thing in base.things if thing.element is not None]
        extra = self.looked_up(base, at)
        if has(labels, "m:") and "TGT" in at and not isinstance(node, ast.Slice):
            return self.loss(labels | (at & DATA) | extra | iterations(at), at)
        if "part" not in labels and "VAL" in labels and constant_part(node, at):
            extra |= {"part"}
        extra |= side(node) if "TGT" in labels or has(labels, "loss:") or has(labels, "m:") else NONE
        found = join(*held) if held else Value()
        carried = at & DATA if "VAL" in at and not (labels & DATA) else NONE
        if "TGT" in at:
            carried -= {"TGT"}
        return Value(
            found.labels | labels | extra | iterations(at) | carried | (at & {"blob", "src", "part"}),
            things=found.things,
        )

    def looked_up(self, base: Value, at: frozenset[str]) -> frozenset[str]:
        """Return the labels of a look-up: in a table filled from tokens, at the true token, at bytes of text."""
        extra: set[str] = {label for label in at if label.startswith(("rd:", "tkey", "bkey"))}
        tables = [thing for thing in base.things if thing.kind in ("dict", "tensor", "list", "instance")]
        if "VAL" in at or "bytes" in at:
            for thing in tables:
                if len(thing.reads) < 200:
                    event = self.event("read", things=(thing.id,), labels=at)
                    thing.reads.append(event)
                    if thing.writes:
                        extra.add(f"rd:{len(self.events) - 1}")
        labels = base.all_labels()
        if "hashed" in at:
            extra |= {"tkey", "tread"}
        if "bytes" in at:
            extra.add("bkey")
        elif "TGT" in at and "hashed" not in at and not labels & {"DIST", "VAL"} and not has(labels, "m:"):
            counted = base.things and all(t.writes or (t.element is None and not t.labels) for t in base.things)
            extra.add("tread" if counted else "cls")  # the counts of tokens are no property of a token
        if "enc" in labels and "VAL" in at:
            extra.add("bytes")
        return frozenset(extra)

    def x_BinOp(self, node: ast.BinOp, scope: Scope) -> Value:
        return self.binary(node.op, self.value(node.left, scope), self.value(node.right, scope))

    def binary(self, op: ast.AST, left: Value, right: Value) -> Value:
        """Return the result of an operator."""
        const = folded(type(op), left.const, right.const)
        if isinstance(op, ast.Add) and left.items is not None and right.items is not None:
            return Value(items=(left.items + right.items)[:64])
        if isinstance(op, ast.Add) and left.things and right.things and left.things[0].kind == "list":
            return join(left, right)
        a, b = left.all_labels(), right.all_labels()
        labels = bounded(a | b)
        if (
            "VAL" in labels
            and isinstance(op, _HASHING)
            and ("TGT" in labels or "hashed" in labels)
            and not has(labels, "m:")
        ):
            labels |= {"hashed"}
        if isinstance(op, ast.Mult) and "vsize" in labels:
            shares = [v.const for v in (left, right) if "env" in v.labels and isinstance(v.const, float)]
            if any(0 < share < 1 for share in shares):
                labels |= {"part"}
        if isinstance(op, (ast.Div, ast.Mult)) and labels & {"ln2", "nbytes"}:
            for operand in (a, b):
                if has(operand, "loss:") or has(operand, "acc:"):
                    self.scored(operand)
        return Value(
            labels if const is UNKNOWN else labels | split_labels(const if isinstance(const, str) else ""), const
        )

    def scored(self, labels: frozenset[str]) -> None:
        """Mark the sums of losses that become bits."""
        for number in numbers(labels, "acc:"):
            self.things[number].scored = True
        for number in numbers(labels, "loss:"):
            for thing in self.sums_of.get(number, ()):
                self.things[thing].scored = True
        if (
            not self.loops
            and has(labels, "loss:")
            and any(x in MARKS or x.startswith(("rd:", "st:", "sel:")) for x in labels)
        ):
            self.add(self.thing("number", scored=True), labels)  # a score that no sum was made for

    def x_UnaryOp(self, node: ast.UnaryOp, scope: Scope) -> Value:
        value = self.value(node.operand, scope)
        if not known(value):
            return Value(value.all_labels())
        if isinstance(node.op, ast.Not):
            return Value(value.labels, not value.const)
        if isinstance(node.op, ast.USub) and isinstance(value.const, (int, float)):
            return Value(value.labels, -value.const)
        return Value(value.labels)

    def x_BoolOp(self, node: ast.BoolOp, scope: Scope) -> Value:
        values = [self.value(part, scope) for part in node.values]
        wanted = isinstance(node.op, ast.Or)
        for value in values:
            if known(value) and bool(value.const) is wanted:
                return value if wanted else Value(value.labels, False)
        if all(known(value) for value in values):
            return values[-1]
        joined = join(*values)
        return Value(joined.labels, UNKNOWN, joined.things)

    def x_Compare(self, node: ast.Compare, scope: Scope) -> Value:
        values = [self.value(part, scope) for part in (node.left, *node.comparators)]
        labels = mixed(*values).labels
        op = node.ops[0]
        left, right = values[0].all_labels(), values[1].all_labels()
        if isinstance(op, ast.Eq) and paid(left, right):
            labels |= {"paid"}
        if ("TGT" in left) != ("TGT" in right) and not isinstance(op, (ast.Eq, ast.NotEq, ast.Is, ast.IsNot)):
            other = right if "TGT" in left else left
            padding = any(v.const in (-100, -1, 0, 1) for v in values if isinstance(v.const, int))
            if not padding and not other & DATA and not has(labels, "m:") and not has(labels, "rd:"):
                labels |= {"cls"}
        if isinstance(op, (ast.Lt, ast.Gt, ast.LtE, ast.GtE)) and has(labels, "acc:") and "VAL" in labels:
            self.event("compare", labels=labels)
        const = UNKNOWN
        if len(values) == 2:
            const = folded(type(op), values[0].const, values[1].const)
            if (
                isinstance(op, (ast.Is, ast.IsNot))
                and not known(values[0])
                and values[1].const is None
                and values[0].things
            ):
                const = isinstance(op, ast.IsNot)
        return Value(labels, const)

    def x_IfExp(self, node: ast.IfExp, scope: Scope) -> Value:
        test = self.value(node.test, scope)
        if known(test):
            return self.value(node.body if test.const else node.orelse, scope)
        result = join(self.value(node.body, scope), self.value(node.orelse, scope))
        return self.chosen(test.all_labels(), result)

    def chosen(self, test: frozenset[str], result: Value) -> Value:
        """Return a value that a condition chose, marked if the condition saw what it must not."""
        marks = test & {"cls", "paid", "blob"} | {x for x in test if x.startswith(("rd:", "st:"))}
        own = result.all_labels()
        if len(set(numbers(test, "loss:"))) > 1 and has(own, "loss:"):
            marks |= {"oracle"}
            self.marked.setdefault("oracle", self.site)
        if (
            (has(test, "acc:") or has(test, "loss:"))
            and "VAL" in test
            and not has(own, "loss:")
            and not has(own, "acc:")
        ):
            self.event("choice", labels=test)
            marks |= {f"sel:{len(self.events) - 1}"}
        return result.with_labels(*marks) if marks else result

    def x_Tuple(self, node: ast.Tuple, scope: Scope) -> Value:
        if any(isinstance(part, ast.Starred) for part in node.elts):
            return join(*(self.value(part, scope) for part in node.elts))
        return Value(items=tuple(self.value(part, scope) for part in node.elts[:64]))

    def x_List(self, node: ast.List, scope: Scope) -> Value:
        thing = self.thing("list")
        values = [self.value(part, scope) for part in node.elts[:200]]
        thing.element = join(*values) if values else None
        if values and len(values) == len(node.elts) <= 16 and not any(isinstance(n, ast.Starred) for n in node.elts):
            return Value(things=(thing,), items=tuple(values))
        return Value(things=(thing,), const=UNKNOWN if values else [])

    x_Set = x_List

    def x_Dict(self, node: ast.Dict, scope: Scope) -> Value:
        thing = self.thing("dict")
        for key, part in list(zip(node.keys, node.values, strict=True))[:400]:
            value = self.value(part, scope)
            name = self.value(key, scope) if key is not None else None
            if name is not None and known(name):
                thing.attributes[str(name.const)] = value
            thing.element = value if thing.element is None else join(thing.element, value)
        return Value(things=(thing,))

    def x_Starred(self, node: ast.Starred, scope: Scope) -> Value:
        return self.value(node.value, scope)

    def x_NamedExpr(self, node: ast.NamedExpr, scope: Scope) -> Value:
        value = self.value(node.value, scope)
        self.bind(node.target, value, scope)
        return value

    def x_Await(self, node: ast.Await, scope: Scope) -> Value:
        return self.value(node.value, scope)

    def x_Yield(self, node: ast.Yield, scope: Scope) -> Value:
        scope.yielded.append(self.value(node.value, scope))
        return Value()

    def x_YieldFrom(self, node: ast.YieldFrom, scope: Scope) -> Value:
        scope.yielded.append(self.value(node.value, scope))
        return Value()

    def x_Lambda(self, node: ast.Lambda, scope: Scope) -> Value:
        return Value(things=(self.thing("function", node=node, scope=scope),))


def size_labels(labels: frozenset[str]) -> frozenset[str]:
    """Return the label of a number of validation tokens."""
    return frozenset({"vsize"}) if "VAL" in labels else NONE
