"""Run the statements of an abstract run."""

from __future__ import annotations

import ast

from golfcore.contest.flow.definitions import Definitions
from golfcore.contest.flow.operators import assigned, length, side
from golfcore.contest.flow.state import MAX_CALLS, Scope, is_validation_name, known
from golfcore.contest.flow.values import DATA, NONE, UNKNOWN, Thing, Value, has, join, numbers

_EXITS = (ast.Return, ast.Continue, ast.Break, ast.Raise)
TWICE = 4  # loops within loops that are run twice; deeper ones are run once


class Statements(Definitions):
    """Statements, loops and assignments."""

    def block(self, body: list[ast.stmt], scope: Scope) -> str:
        """Run statements until one leaves the block; return how it was left, or nothing."""
        for node in body:
            method = getattr(self, "s_" + type(node).__name__, None)
            if method is None:
                continue
            self.tick(node)
            self.site = (scope.file, node.lineno)
            left = method(node, scope)
            if left:
                return str(left)
        return ""

    def s_Expr(self, node: ast.Expr, scope: Scope) -> None:
        self.value(node.value, scope)

    def s_Return(self, node: ast.Return, scope: Scope) -> str:
        value = self.value(node.value, scope)
        for test in self.control:
            value = self.chosen(test, value)
        scope.returned.append(value)
        return "return"

    def s_Break(self, node: ast.Break, scope: Scope) -> str:
        return "break"

    def s_Continue(self, node: ast.Continue, scope: Scope) -> str:
        return "continue"

    def s_Raise(self, node: ast.Raise, scope: Scope) -> str:
        return "raise"

    def s_Assign(self, node: ast.Assign, scope: Scope) -> None:
        value = self.value(node.value, scope)
        for target in node.targets:
            if (
                isinstance(target, ast.Name)
                and isinstance(node.value, ast.BinOp)
                and isinstance(node.value.op, ast.Add)
            ):
                own = [s for s in (node.value.left, node.value.right) if isinstance(s, ast.Name) and s.id == target.id]
                if own and has(value.labels, "loss:"):
                    other = node.value.right if own[0] is node.value.left else node.value.left
                    self.augment(target, self.value(other, scope), scope)
                    continue
            self.bind(target, value, scope)

    def s_AnnAssign(self, node: ast.AnnAssign, scope: Scope) -> None:
        if node.value is not None:
            self.bind(node.target, self.value(node.value, scope), scope)

    def s_AugAssign(self, node: ast.AugAssign, scope: Scope) -> None:
        value = self.value(node.value, scope)
        if isinstance(node.op, (ast.Add, ast.Sub)):
            self.augment(node.target, value, scope, minus=isinstance(node.op, ast.Sub))
        else:
            old = self.value(node.target, scope)
            if isinstance(node.target, ast.Subscript):
                self.stored(node.target, value, scope, aggregate=True)
            else:
                self.bind(node.target, self.binary(node.op, old, value), scope)

    def augment(self, target: ast.AST, value: Value, scope: Scope, *, minus: bool = False) -> None:
        """Add to a name, attribute or element: to a sum of losses, to a count, to parameters."""
        labels = value.all_labels()
        old = self.value(target, scope)
        if isinstance(target, ast.Subscript):
            self.stored(target, value, scope, aggregate=True)
            return
        if minus and has(old.all_labels(), "m:") and "grad" in labels:
            self.step(old, labels)
            return
        if has(labels, "loss:") or has(labels, "acc:"):
            thing = next((t for t in old.things if t.kind in ("number", "tensor")), None)
            if thing is None or has(old.labels, "m:"):
                thing = self.thing("number")
                holder = scope.holder(target.id) if isinstance(target, ast.Name) else None
                if holder is not None and isinstance(target, ast.Name):
                    thing.loops = holder.born.get(target.id, thing.loops)
            self.add(thing, labels)
            self.bind(target, Value(frozenset({f"acc:{thing.id}"}), things=(thing,)), scope, born=False)
            return
        self.collected(labels)
        counted = frozenset({"nbytes"}) if "cls" in labels or "nbytes" in labels else NONE
        sums = self.binary(ast.Add(), old, value)
        self.bind(
            target,
            Value(
                sums.labels | counted | self.iteration_labels(), sums.const if not self.loops else UNKNOWN, old.things
            ),
            scope,
            born=False,
        )

    def add(self, thing: Thing, labels: frozenset[str]) -> None:
        """Record that losses were added to a sum."""
        found = numbers(labels, "loss:")
        for number in numbers(labels, "acc:"):
            if self.things[number] is not thing:
                found += [loss for event in self.things[number].adds[-8:] for loss in event.losses]
        event = self.event("add", things=(thing.id,), losses=tuple(sorted(set(found))), labels=labels)
        for number in found:
            self.sums_of.setdefault(number, set()).add(thing.id)
        thing.adds.append(event)
        thing.labels |= {f"acc:{thing.id}", "VAL"} if "VAL" in labels else {f"acc:{thing.id}"}
        if labels & {"ln2", "nbytes"}:
            thing.scored = True

    def bind(self, target: ast.AST, value: Value, scope: Scope, *, born: bool = True) -> None:
        """Assign a value to a name, attribute, element, or to several of them."""
        for test in self.control:
            value = self.chosen(test, value)
        if isinstance(target, ast.Name):
            holder = scope.holder(target.id)
            if (
                is_validation_name(target.id)
                and not value.all_labels() & DATA
                and not known(value)
                and not value.things
            ):
                value = value.with_labels("VAL")
            holder.names[target.id] = value
            if born:
                holder.born[target.id] = tuple(self.loops)
        elif isinstance(target, ast.Attribute):
            base = self.value(target.value, scope)
            self.attribute_set(base, target.attr, value)
        elif isinstance(target, ast.Subscript):
            self.stored(target, value, scope, aggregate=False)
        elif isinstance(target, (ast.Tuple, ast.List)):
            for index, part in enumerate(target.elts):
                self.bind(
                    part.value if isinstance(part, ast.Starred) else part,
                    self.part(value, index, len(target.elts)),
                    scope,
                )

    def part(self, value: Value, index: int, count: int) -> Value:
        """Return one of the values that an assignment to several names unpacks."""
        if value.items is not None and len(value.items) == count:
            return value.items[index]
        return self.element(value, None)

    def attribute_set(self, base: Value, name: str, value: Value) -> None:
        """Set an attribute of an object; parameters that are set from data are an update."""
        labels = value.all_labels()
        if name == "data" and has(base.all_labels(), "m:"):
            self.changed(base, labels)
            return
        for thing in base.things[:6]:
            old = thing.attributes.get(name)
            thing.attributes[name] = (
                value if old is None or not self.loops else join(value, old) if old.things else value
            )
            if thing.kind == "model":
                for part in value.things:
                    part.attributes.setdefault("owner", Value(things=(thing,)))
            self.effects += 1

    def stored(self, target: ast.Subscript, value: Value, scope: Scope, *, aggregate: bool) -> None:
        """Store into an element: into a table that tokens address, or at a position."""
        base = self.value(target.value, scope)
        key = self.value(target.slice, scope)
        labels, at = value.all_labels(), key.all_labels()
        if aggregate:
            self.collected(labels)
        if has(base.labels, "m:") and (has(labels, "grad") or "act" in labels):
            self.step(base, labels)
            return
        if not at & DATA and known(key):
            for thing in base.things:
                if thing.kind == "dict":
                    thing.attributes[str(key.const)] = value
        looked = frozenset(x for x in at if x.startswith(("rd:", "st:", "sel:")))
        for thing in base.things[:6]:
            if thing.kind == "tensor":
                thing.labels |= side(target.slice) | looked  # a mask of one side of a window, or a hint's place
            self.fill(thing, value, at, aggregate=aggregate)
            if has(base.all_labels(), "loss:") and not has(labels, "loss:") and ("paid" in at or "blob" in at):
                thing.labels.add("paid")
        if not base.things and isinstance(target.value, ast.Name):
            marks = at & {"paid", "cls"} if has(base.labels, "loss:") else NONE
            if has(base.labels, "loss:") and "blob" in at and not has(labels, "loss:"):
                marks |= {"paid"}
            scope.holder(target.value.id).names[target.value.id] = Value(base.labels | labels | marks | looked)

    def fill(self, thing: Thing, value: Value, at: frozenset[str], *, aggregate: bool) -> None:
        """Note what is put into a container."""
        labels = value.all_labels()
        content = "VAL" in at or "bytes" in at or (aggregate and "VAL" in labels)
        if content and not has(labels, "loss:") and len(thing.writes) < 200:
            thing.writes.append(self.event("write", things=(thing.id,), labels=labels | at))
        if has(labels, "loss:") and "VAL" in labels:
            self.add(thing, labels)
        elif content:
            # What is stored is of the past, whatever was read to count it up.
            value = value.without("cls", "tkey", "bkey", "hashed", "TGT")
        thing.element = value if thing.element is None else join(value, thing.element)
        if thing.kind == "tensor":
            thing.labels |= labels - {"TGT"}
        self.effects += 1

    # --- branches and loops -------------------------------------------------------------------------------------------

    def s_If(self, node: ast.If, scope: Scope) -> str:
        test = self.value(node.test, scope)
        if known(test) and not (self.loose and "env" in test.labels):
            self.switched_off |= "env" in test.labels
            return self.block(node.body if test.const else node.orelse, scope)
        self.ends(node)
        self.control.append(test.all_labels())
        unsure = int("env" not in test.labels)
        self.unsure += unsure
        before, born = dict(scope.names), dict(scope.born)
        left = self.block(node.body, scope)
        after = scope.names
        scope.names, scope.born = before, born
        other = self.block(node.orelse, scope)
        self.control.pop()
        self.unsure -= unsure
        if left and other:
            return left if left == other else "return" if "return" in (left, other) else left
        if left in ("return", "raise"):
            return ""
        if other in ("return", "raise"):
            scope.names = after
            return ""
        for name, value in after.items():
            mine = scope.names.get(name)
            scope.names[name] = value if mine is None or mine is value else join(value, mine)
        return ""

    def ends(self, node: ast.If) -> None:
        """Record a loop that ends at a fixed number: ``if seen >= 500: break``."""
        test = node.test
        if not (
            self.loops and len(node.body) == 1 and isinstance(node.body[0], ast.Break) and isinstance(test, ast.Compare)
        ):
            return
        last = test.comparators[-1]
        if (
            isinstance(test.ops[0], (ast.Gt, ast.GtE))
            and isinstance(last, ast.Constant)
            and isinstance(last.value, int)
            and last.value >= 100
        ):
            self.event("limit", note=f"if {ast.unparse(test)[:80]}: break")

    def s_For(self, node: ast.For, scope: Scope) -> str:
        iterable = self.value(node.iter, scope)
        return self.loop(node, iterable, scope)

    s_AsyncFor = s_For

    def s_While(self, node: ast.While, scope: Scope) -> str:
        return self.loop(node, None, scope)

    def loop(self, node: ast.For | ast.AsyncFor | ast.While, iterable: Value | None, scope: Scope) -> str:
        """Run a loop twice, so that what one iteration leaves is seen by the next."""
        count = length(iterable)
        self.runs += 1
        run = self.runs
        if iterable is None or "src" in iterable.all_labels():
            self.driving.add(run)
        carried = assigned(node.body) & set(scope.names)
        for iteration in range(min(2 if len(self.loops) < TWICE else 1, count)):
            self.loops.append((run, iteration))
            self.unsure_at.append(self.unsure)
            if iteration:
                for name in carried:
                    if not scope.names[name].things:
                        old = scope.names[name]
                        scope.names[name] = Value(
                            old.labels | {f"i:{run}"}, UNKNOWN if known(old) else old.const, (), old.items
                        )
            if isinstance(node, ast.While):
                test = self.value(node.test, scope)
                if known(test) and not test.const:
                    self.leave()
                    break
            elif iterable is not None:
                self.bind(node.target, self.element(iterable, iteration).through(f"i:{run}"), scope)
            left = self.block(node.body, scope)
            self.leave()
            if left in ("return", "raise"):
                return left if isinstance(node, ast.While) else ""
            if left == "break":
                break
        self.block(node.orelse, scope)
        return ""

    def leave(self) -> None:
        """Leave an iteration of a loop."""
        self.loops.pop()
        self.unsure_at.pop()

    def element(self, value: Value, iteration: int | None) -> Value:
        """Return what a loop over a value gives: a constant if it is known which."""
        if isinstance(value.const, (range, list, tuple, str)) and iteration is not None:
            return Value(value.all_labels(), value.const[iteration] if iteration < len(value.const) else UNKNOWN)
        if value.items is not None:
            if iteration is not None and iteration < len(value.items) <= 2:
                return value.items[iteration]
            return join(*value.items) if value.items else Value()
        for thing in value.things:
            if thing.kind == "enumerate" and thing.element is not None:
                start = Value(NONE, iteration) if iteration is not None else Value()
                return Value(
                    items=(start.with_labels(*self.iteration_labels()), self.element(thing.element, iteration))
                )
            if thing.kind == "range":
                start = thing.attributes["start"]
                return start if iteration == 0 else Value(start.labels | thing.attributes["stop"].labels)
        for thing in value.things:
            if thing.kind in ("instance", "model"):
                for name, given in (("__iter__", []), ("__getitem__", [Value()])):
                    method = self.member(thing, name)
                    if method is not None and self.depth < MAX_CALLS:
                        made = self.call(method, given, {}, None)
                        own = made.things == (thing,) and name == "__iter__"
                        step = self.member(thing, "__next__") if own else None
                        if step is not None:
                            return self.call(step, [], {}, None)
                        return made if name == "__getitem__" else self.element(made, iteration)
        held = [thing.element for thing in value.things if thing.element is not None]
        labels = value.all_labels()
        if held:
            made = join(*held)
            return Value(made.labels | labels, made.const, made.things, made.items)
        return Value(labels, things=tuple(t for t in value.things if t.kind == "model"))

    def s_With(self, node: ast.With, scope: Scope) -> str:
        for item in node.items:
            value = self.value(item.context_expr, scope)
            if item.optional_vars is not None:
                self.bind(item.optional_vars, value, scope)
        return self.block(node.body, scope)

    s_AsyncWith = s_With

    def s_Try(self, node: ast.Try, scope: Scope) -> str:
        left = self.block(node.body, scope)
        for handler in node.handlers:
            before = dict(scope.names)
            if self.block(handler.body, scope) in ("return", "raise", "continue", "break"):
                scope.names = before
        other = self.block(node.orelse, scope) if not left else ""
        last = self.block(node.finalbody, scope)
        return last or left or other

    s_TryStar = s_Try

    def s_Match(self, node: ast.Match, scope: Scope) -> None:
        self.value(node.subject, scope)
        for case in node.cases:
            self.block(case.body, scope)

    def s_Global(self, node: ast.Global | ast.Nonlocal, scope: Scope) -> None:
        scope.exports |= set(node.names)

    s_Nonlocal = s_Global

    def s_Delete(self, node: ast.Delete, scope: Scope) -> None:
        return
