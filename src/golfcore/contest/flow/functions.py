"""Model single functions of Python, numpy and torch that do something of their own to the values of a program."""

from __future__ import annotations

import math
from typing import Any

from golfcore.contest.flow.library import Library
from golfcore.contest.flow.state import known, split_labels
from golfcore.contest.flow.values import DATA, NONE, NOTHING, UNKNOWN, Call, Thing, Value, has, join, mixed, numbers


class Functions(Library):
    """Functions with a meaning of their own."""

    def f_get(self, call: Call) -> Value:
        return self.environment(call.arguments, call.path) if "environ" in call.path else Value(call.labels)

    def f_getenv(self, call: Call) -> Value:
        return self.environment(call.arguments, "environ")

    def environment(self, arguments: list[Value], path: str) -> Value:
        """Return a variable of the environment: as logs and scripts set it, else its default."""
        name = arguments[0].const if arguments and isinstance(arguments[0].const, str) else ""
        default = arguments[1] if len(arguments) > 1 else Value()
        found = self.settings.get(name, self.settings.get(name.lower()))
        if found is not None:
            return Value(split_labels(found) | default.labels | {"env"}, found)
        return default.with_labels("env")

    def f_int(self, call: Call) -> Value:
        return _converted(int, call.arguments, call.labels)

    def f_float(self, call: Call) -> Value:
        return _converted(float, call.arguments, call.labels)

    def f_bool(self, call: Call) -> Value:
        return _converted(bool, call.arguments, call.labels)

    def f_range(self, call: Call) -> Value:
        if (
            all(isinstance(value.const, int) and not isinstance(value.const, bool) for value in call.arguments)
            and 0 < len(call.arguments) <= 3
        ):
            numbers_ = [value.const for value in call.arguments]
            if all(abs(n) < 1 << 62 for n in numbers_) and (len(numbers_) < 3 or numbers_[2]):
                return Value(call.labels, range(*numbers_))
        thing = self.thing("range")
        thing.attributes["start"] = call.arguments[0] if len(call.arguments) > 1 else Value(NONE, 0)
        thing.attributes["stop"] = Value(call.labels - DATA)
        return Value(call.labels - DATA, things=(thing,))

    def f_enumerate(self, call: Call) -> Value:
        thing = self.thing("enumerate")
        thing.element = call.arguments[0] if call.arguments else Value()
        return Value(things=(thing,))

    def f_zip(self, call: Call) -> Value:
        thing = self.thing("generator")
        thing.element = Value(items=tuple(self.call_element(value) for value in call.arguments))
        return Value(things=(thing,))

    def call_element(self, value: Value) -> Value:
        if value.items is not None:
            return join(*value.items) if value.items else Value()
        held = [thing.element for thing in value.things if thing.element is not None]
        return join(*held, Value(value.all_labels())) if held else Value(value.all_labels())

    def f_next(self, call: Call) -> Value:
        if not call.arguments:
            return Value()
        for thing in call.arguments[0].things:
            method = self.member(thing, "__next__")
            if method is not None:
                return self.call(method, [], {}, None)
        return self.call_element(call.arguments[0]).with_labels("src")

    def f_log(self, call: Call) -> Value:
        if call.arguments and call.arguments[0].const in (2, 2.0) and known(call.arguments[0]):
            return Value(frozenset({"ln2"}), math.log(2))
        return Value(call.labels)

    def f_log2(self, call: Call) -> Value:
        self.scored(call.labels)
        return Value(call.labels | {"ln2"})

    def f_where(self, call: Call) -> Value:
        if len(call.arguments) < 3:
            return Value(call.labels)
        return self.chosen(
            call.arguments[0].all_labels(),
            Value(mixed(*call.arguments[1:]).labels | _kept(call.arguments[0].all_labels())),
        )

    def f_stack(self, call: Call) -> Value:
        parts = list(call.arguments[0].items or ()) if call.arguments else []
        sides = [set(numbers(value.all_labels(), "loss:")) for value in parts]
        several = len([side for side in sides if side]) > 1 and len({frozenset(side) for side in sides if side}) > 1
        accs = has(call.labels, "acc:") and len(set(numbers(call.labels, "loss:"))) > 1
        return Value(call.labels | ({"stacked"} if several or accs else NONE))

    def f_Parameter(self, call: Call) -> Value:
        thing = self.thing("leaf")
        return Value(call.labels | {f"m:{thing.id}"}, things=(thing,))

    def f_DataLoader(self, call: Call) -> Value:
        """Return a loader whose batches are what its data set gives."""
        thing = self.thing("generator")
        thing.element = self.element(call.arguments[0], None) if call.arguments else Value(call.labels)
        return Value(things=(thing,))

    def f_normal_(self, call: Call) -> Value:
        """Set a parameter back, as the functions of ``nn.init`` do."""
        if call.arguments:
            self.reset(call.arguments[0])
        return NOTHING

    f_zeros_ = f_constant_ = f_uniform_ = f_kaiming_uniform_ = f_xavier_uniform_ = f_orthogonal_ = f_normal_

    def f_glob(self, call: Call) -> Value:
        return Value(call.labels | {"names"})

    f_listdir = f_rglob = f_glob

    def f_grad(self, call: Call) -> Value:
        losses = tuple(numbers(call.arguments[0].all_labels(), "loss:")) if call.arguments else ()
        leaves = tuple(numbers(mixed(*call.arguments[1:]).labels, "m:"))
        event = self.event("step", things=leaves, losses=losses, labels=call.labels)
        return Value(
            frozenset({"grad", f"ad:{self.events.index(event)}"}) | (call.labels & DATA) | {f"gl:{n}" for n in losses}
        )

    def f_deepcopy(self, call: Call) -> Value:
        return self.copied(call.arguments[0], {}) if call.arguments else Value()

    f_copy = f_deepcopy

    def copied(self, value: Value, done: dict[int, Thing]) -> Value:
        """Return a copy of a value: models and parameters become objects of their own, with the updates so far."""
        things = []
        for thing in value.things:
            if thing.kind not in ("model", "leaf", "instance", "list", "dict"):
                things.append(thing)
                continue
            if thing.id not in done and len(done) < 100:
                twin = self.thing(thing.kind, node=thing.node, scope=thing.scope, element=thing.element)
                twin.updates, twin.labels, twin.writes = list(thing.updates), set(thing.labels), list(thing.writes)
                done[thing.id] = twin
                twin.attributes = {
                    k: self.copied(v, done) for k, v in list(thing.attributes.items())[:200] if k != "owner"
                }
            things.append(done.get(thing.id, thing))
        labels = frozenset(
            f"m:{done[int(x[2:])].id}" if x.startswith("m:") and int(x[2:]) in done else x for x in value.labels
        )
        return Value(labels, value.const, tuple(things), value.items)

    def f_partial(self, call: Call) -> Value:
        if not call.arguments or not call.arguments[0].things:
            return Value(call.labels)
        thing = self.thing("partial")
        thing.element = call.arguments[0]
        thing.attributes["args"] = Value(items=tuple(call.arguments[1:]))
        return Value(things=(thing,))

    def f_getattr(self, call: Call) -> Value:
        if len(call.arguments) > 1 and isinstance(call.arguments[1].const, str):
            return self.attribute(call.arguments[0], call.arguments[1].const)
        return Value(call.labels)

    def f_setattr(self, call: Call) -> Value:
        if len(call.arguments) > 2 and isinstance(call.arguments[1].const, str):
            for thing in call.arguments[0].things:
                thing.attributes[call.arguments[1].const] = call.arguments[2]
        return NOTHING

    def f_import_module(self, call: Call) -> Value:
        name = call.arguments[0].const if call.arguments else None
        return self.module(name) if isinstance(name, str) else Value()

    f___import__ = f_import_module

    def f_join(self, call: Call) -> Value:
        if call.arguments and all(isinstance(value.const, str) for value in call.arguments):
            text = "/".join(value.const for value in call.arguments)[:2_000]
            return Value(call.labels | split_labels(text), text)
        return Value(call.labels)

    def f_save(self, call: Call) -> Value:
        if len(call.arguments) > 1:
            first, second = call.arguments[0], call.arguments[1]
            numpy = call.path.startswith(("np.", "numpy."))
            target, content = (first, second) if numpy else (second, first)
            key = self.place(target, None) or next(
                (t.attributes["place"].const for t in target.things if "place" in t.attributes), ""
            )
            for thing in target.things:
                thing.labels |= content.all_labels() | {f"m:{n}" for n in self.parameters_of(content)}
            self.disk[key] = content.all_labels() | {f"m:{n}" for n in self.parameters_of(content)}
        return NOTHING

    f_save_file = f_dump = f_save

    def f_at(self, call: Call) -> Value:
        """Add to the elements of an array, as ``np.add.at`` does."""
        if len(call.arguments) > 1:
            for thing in call.arguments[0].things:
                thing.writes.append(self.event("write", things=(thing.id,), labels=call.labels))
        return NOTHING

    def f_manual_seed(self, call: Call) -> Value:
        self.event("seed", labels=call.labels)
        return NOTHING

    f_seed = f_manual_seed_all = f_set_seed = f_manual_seed


def _converted(kind: Any, arguments: list[Value], labels: frozenset[str]) -> Value:
    if arguments and known(arguments[0]) and isinstance(arguments[0].const, (int, float, str, bool)):
        try:
            return Value(labels, kind(arguments[0].const))
        except (ValueError, OverflowError):
            return Value(labels)
    return Value(labels, UNKNOWN)


def _kept(labels: frozenset[str]) -> frozenset[str]:
    """Return what a condition passes on to the value that it chooses."""
    return frozenset(x for x in labels if x.startswith(("rd:", "st:", "sel:")) or x in ("tkey", "bkey"))
