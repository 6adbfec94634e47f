"""Say what training does to parameters, and what methods of models, containers and files do."""

from __future__ import annotations

import ast
from abc import abstractmethod

from golfcore.contest.flow.functions import Functions
from golfcore.contest.flow.state import known
from golfcore.contest.flow.values import DATA, NOTHING, Call, Event, Thing, Value, has, join, numbers


class Training(Functions):
    """Steps of optimizers, changes of parameters, and methods with a meaning of their own."""

    def step(self, parameters: Value, labels: frozenset[str]) -> None:
        """Record that parameters move along a gradient that a program applied by itself."""
        found = tuple(sorted(self.parameters_of(parameters)))
        losses = tuple(sorted(set(numbers(labels, "gl:")) | set(numbers(labels, "loss:")) | set(self.pending)))
        self.update(found, losses, "step", labels)

    def reset(self, parameters: Value) -> None:
        """Forget the updates of parameters that are set back, and of the adapter that they belong to."""
        for number in self.parameters_of(parameters):
            thing = self.things[number]
            owners = thing.attributes["owner"].things if thing.kind == "leaf" and "owner" in thing.attributes else ()
            for part in (number, *(n for owner in owners for n in self.parameters_of(Value(things=(owner,))))):
                self.things[part].updates = []
        self.effects += 1

    def changed(self, parameters: Value, labels: frozenset[str]) -> None:
        """Record that parameters are set from data: copied, calibrated, or taken from another model."""
        found = tuple(sorted(self.parameters_of(parameters)))
        events: dict[int, Event] = {}
        for label in labels:
            if label.startswith("v:"):
                number, count = map(int, label[2:].split(":"))
                events.update((e.order, e) for e in self.things[number].updates[:count])
            elif label.startswith("m:") and not any(x.startswith(f"v:{label[2:]}:") for x in labels):
                events.update((e.order, e) for e in self.things[int(label[2:])].updates)
        self.effects += 1
        for number in found:
            self.things[number].updates = list(events.values())[:64]
        if "VAL" in labels and not has(labels, "loss:"):
            self.update(found, (), "calibrate", labels)
        elif has(labels, "sel:"):
            self.update(found, (), "select", labels)

    def m_backward(self, call: Call) -> Value:
        losses = numbers(call.base.all_labels(), "loss:")
        self.pending = losses if self.stepped else [*self.pending[-40:], *losses]
        self.sides = call.base.all_labels() & {"head", "tail"}
        self.stepped = False
        self.event("backward", losses=tuple(losses), labels=call.base.all_labels())
        return NOTHING

    def m_step(self, call: Call) -> Value:
        for value in (*call.arguments, *call.named.values()):
            if value.things and value.things[0].kind in ("function", "method"):
                self.call(value, [], {}, None)
        optimizers = [t for value in (call.base, *call.arguments) for t in value.things if t.kind == "optimizer"]
        for thing in optimizers:
            labels: frozenset[str] = self.sides
            for number in self.pending:
                labels |= self.losses[number].labels
            parameters = thing.parameters or tuple(sorted(set(numbers(labels, "m:"))))
            self.update(parameters, tuple(self.pending), "step", labels)
        if (
            not optimizers
            and self.pending
            and not call.base.things
            and "sched" not in ast.unparse(call.node)[:200].lower()
        ):
            labels = frozenset().union(*(self.losses[number].labels for number in self.pending))
            self.update(tuple(sorted(set(numbers(labels, "m:")))), tuple(self.pending), "step", labels)
            optimizers = [self.things[0]] if self.things else []
        self.stepped |= bool(optimizers)
        return NOTHING

    def m_zero_grad(self, call: Call) -> Value:
        self.pending = []
        return NOTHING

    def m_requires_grad_(self, call: Call) -> Value:
        if call.arguments and call.arguments[0].const is False:
            return call.base
        labels = call.base.labels
        made: list[Thing] = []
        for thing in call.base.things or (self.thing("tensor"),):
            if thing.kind == "tensor":
                thing.kind = "leaf"
            if thing.kind == "leaf":
                labels |= {f"m:{thing.id}"}
            made.append(thing)
        return Value(labels, call.base.const, tuple(made))

    def m_load_state_dict(self, call: Call) -> Value:
        if any(thing.kind == "optimizer" for thing in call.base.things):
            return NOTHING
        labels = call.labels
        for value in call.arguments:
            labels |= {f"m:{number}" for number in self.parameters_of(value)}
        if labels & {"blob", "net"}:
            self.event("loaded", labels=labels)
        self.changed(call.base, labels)
        return NOTHING

    def m_register_forward_hook(self, call: Call) -> Value:
        self.hooks += call.arguments[:1]
        return Value()

    m_register_forward_pre_hook = m_register_forward_hook

    # --- containers and files -----------------------------------------------------------------------------------------

    def m_result(self, call: Call) -> Value:
        return call.base

    def m_glob(self, call: Call) -> Value:
        return Value(call.base.all_labels() | call.labels | {"names"})

    def m_get(self, call: Call) -> Value:
        if not call.arguments:
            return Value(call.base.all_labels() | {"src"})
        if known(call.arguments[0]):
            found = [
                t.attributes[str(call.arguments[0].const)]
                for t in call.base.things
                if str(call.arguments[0].const) in t.attributes
            ]
            if found:
                return join(*found)
        default = call.arguments[1:2]
        found_value = self.item(call.base, call.arguments[0], None)
        return join(found_value, *default) if default and default[0].things else found_value

    def m_setdefault(self, call: Call) -> Value:
        found = self.m_get(call)
        if len(call.arguments) > 1:
            for thing in call.base.things[:6]:
                self.fill(thing, call.arguments[1], call.arguments[0].all_labels(), aggregate=False)
        return found

    def m_pop(self, call: Call) -> Value:
        return self.call_element(call.base).with_labels("src")

    m_popleft = m_pop

    def m_items(self, call: Call) -> Value:
        thing = self.thing("generator")
        inner = self.call_element(call.base)
        if inner.items is not None and len(inner.items) == 2:
            return call.base
        thing.element = Value(items=(Value(call.base.labels), inner))
        return Value(call.base.all_labels(), things=(thing,))

    def m_values(self, call: Call) -> Value:
        thing = self.thing("generator")
        inner = self.call_element(call.base)
        thing.element = inner.items[1] if inner.items is not None and len(inner.items) == 2 else inner
        return Value(call.base.all_labels(), things=(thing,))

    def m_update(self, call: Call) -> Value:
        """Update a dict, or count tokens with a Counter."""
        for thing in call.base.things[:6]:
            for value in call.arguments:
                thing.attributes.update(
                    {k: v for t in value.things for k, v in t.attributes.items() if t.kind == "dict"}
                )
                inner = self.call_element(value)
                thing.element = inner if thing.element is None else join(inner, thing.element)
            if "VAL" in call.labels and not has(call.labels, "loss:"):
                thing.writes.append(self.event("write", things=(thing.id,), labels=call.labels))
        return NOTHING

    def m_write(self, call: Call) -> Value:
        for thing in call.base.things:
            if "place" in thing.attributes and has(call.labels, "m:"):
                self.disk[str(thing.attributes["place"].const)] = call.labels
        return Value()

    def m_write_bytes(self, call: Call) -> Value:
        self.disk[self.place(call.base, None) or ast.unparse(call.node.func)[:200]] = call.labels
        return Value()

    def m_read(self, call: Call) -> Value:
        return Value(call.base.all_labels())

    def m_read_bytes(self, call: Call) -> Value:
        key = self.place(call.base, None)
        if key in self.disk:
            return Value(self.disk[key])
        labels = call.base.all_labels()
        return Value(labels if labels & DATA else labels | {"blob"})

    m_read_text = m_read_bytes

    def m_log2(self, call: Call) -> Value:
        self.scored(call.base.all_labels())
        return Value(call.base.all_labels() | {"ln2"})

    def m_getvalue(self, call: Call) -> Value:
        return Value(call.base.all_labels())

    def m_submit(self, call: Call) -> Value:
        return self.run_given(call.arguments, call.named, call.labels)

    m_map = m_starmap = m_apply_async = m_submit

    @abstractmethod
    def fill(self, thing: Thing, value: Value, at: frozenset[str], *, aggregate: bool) -> None: ...
