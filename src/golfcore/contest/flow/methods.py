"""Say what the methods of tensors, containers, models and optimizers do to the origin of values."""

from __future__ import annotations

import ast

from golfcore.contest.flow.library import Library
from golfcore.contest.flow.state import Scope, known
from golfcore.contest.flow.values import DATA, NONE, NOTHING, Thing, Value, has, join, mixed, numbers

_CHAINED = {"to", "cuda", "cpu", "float", "half", "bfloat16", "double", "long", "int", "eval", "train", "contiguous",
            "requires_grad_", "compile", "share_memory_", "pin_memory", "type", "apply", "copy_to", "unwrap"}  # fmt: skip
_SIZES = {
    "numel",
    "size",
    "dim",
    "nelement",
    "element_size",
    "stride",
    "ndimension",
    "stat",
    "exists",
    "is_file",
    "get_device",
}
_ADDS = {"add_", "sub_", "addmm_", "index_add_", "scatter_add_", "lerp_", "addcmul_", "addcdiv_", "baddbmm_", "index_put_",
         "scatter_", "mul_", "div_", "copy_", "masked_fill_", "clamp_", "fill_", "zero_", "index_copy_", "index_fill_"}  # fmt: skip
_PARAMETERS = {
    "parameters",
    "named_parameters",
    "state_dict",
    "modules",
    "named_modules",
    "buffers",
    "named_buffers",
    "children",
}
_PICKS = {"gather", "take", "index_select", "take_along_dim", "select"}
_APPENDS = {"append", "extend", "appendleft", "insert", "put"}
_ENCODES = {
    "encode",
    "tobytes",
    "decode_bytes",
    "id_to_bytes",
    "id_to_piece",
    "IdToPiece",
    "id_to_token",
    "decode_single_token_bytes",
}
_PIECES = {"id_to_piece", "IdToPiece", "id_to_token", "decode", "is_control", "is_byte", "is_unknown", "startswith"}
_SCATTERS = {"index_add_", "scatter_add_", "index_put_", "scatter_"}


class Methods(Library):
    """What methods do of objects that the entry does not define."""

    def method(
        self, base: Value, name: str, arguments: list[Value], named: dict[str, Value], node: ast.Call, scope: Scope
    ) -> Value:
        """Return the result of a method of a value."""
        special = getattr(self, "m_" + name, None)
        given = mixed(*arguments, *named.values())
        if special is not None:
            result: Value = special(base, arguments, named, given.labels, node)
            return result
        labels = base.all_labels()
        if name in _SIZES:
            return Value(labels & {"part"})
        if name in _CHAINED:
            kept = tuple(t for t in base.things if t.kind in ("model", "leaf", "tensor", "instance"))
            return Value(labels, base.const, kept, base.items if name in ("apply",) else None)
        if name in _PARAMETERS:
            return self.parameters_value(base, name)
        if name in _ADDS:
            return self.in_place(base, name, arguments, given.labels)
        if name in _PICKS and arguments:
            return self.item(base, mixed(*arguments, *named.values()), None)
        if name in _APPENDS:
            return self.appended(base, arguments, given.labels)
        if name in ("min", "amin", "max", "amax", "minimum", "maximum", "fmin"):
            return self.best(
                name,
                [Value(labels, things=base.things), *[a for a in arguments if not known(a)]],
                labels | given.labels,
            )
        if name in _ENCODES:
            return self.encoded(labels, given.labels, name)
        if any(t.kind in ("function", "method") for value in arguments for t in value.things):
            self.run_given(arguments, named, given.labels)
        return self.plain(base, name, labels, given.labels)

    def plain(self, base: Value, name: str, labels: frozenset[str], given: frozenset[str]) -> Value:
        """Return the result of a method that nothing special is known of."""
        result = labels | given
        for thing in base.things:
            if thing.kind == "model":
                result |= {f"m:{thing.id}"}
                self.run_hooks(given)
        if name in _PIECES and "TGT" in given:
            result |= {"cls"}
        if name in ("softmax", "log_softmax"):
            result |= {"DIST"}
        if (
            has(result, "m:")
            and "TGT" in given
            and any(t.kind == "model" for t in base.things)
            and not has(result, "loss:")
        ):
            return self.loss(result)
        things = (
            base.things
            if name in ("clone", "detach", "view", "reshape", "expand", "copy", "unsqueeze", "squeeze")
            else ()
        )
        return Value(result, things=tuple(t for t in things if t.kind in ("list", "dict", "tensor")))

    def encoded(self, labels: frozenset[str], given: frozenset[str], name: str) -> Value:
        """Return bytes of text, or the piece of a token."""
        result = labels | given
        if "VAL" in result:
            return Value(result | {"enc", "bytes"} | ({"cls"} if "TGT" in given else NONE))
        return Value(result | {"enc"})

    def parameters_value(self, base: Value, name: str) -> Value:
        """Return the parameters of a model; a copy of its state knows how often it was updated."""
        found = self.parameters_of(base)
        labels = base.labels | {f"m:{number}" for number in found}
        if name == "state_dict":
            labels |= {f"v:{number}:{len(self.things[number].updates)}" for number in found}
        thing = self.thing("generator")
        thing.element = Value(
            labels, items=(Value(), Value(labels)) if name.startswith("named_") or name == "state_dict" else None
        )
        if name in ("modules", "children"):
            thing.element = Value(labels, things=tuple(t for t in base.things if t.kind == "model"))
        elif name == "named_modules":
            thing.element = Value(
                labels, items=(Value(), Value(labels, things=tuple(t for t in base.things if t.kind == "model")))
            )
        return Value(labels, things=(thing,))

    def in_place(self, base: Value, name: str, arguments: list[Value], given: frozenset[str]) -> Value:
        """Change a value in its place: a parameter, a sum of losses, a table."""
        labels = base.all_labels()
        if has(labels, "m:") and has(base.labels, "m:") and not any(t.kind == "dict" for t in base.things):
            if "grad" in given or has(given, "ad:"):
                self.step(base, given)
            elif name in ("copy_", "add_", "lerp_") and given & {"VAL", "TRAIN"}:
                self.changed(base, given)
            return base
        for thing in base.things[:6]:
            if has(given, "loss:") and name == "add_":
                self.add(thing, given)
            elif "VAL" in given and name in (*_SCATTERS, "addmm_", "add_", "lerp_", "baddbmm_", "copy_"):
                key = arguments[1].all_labels() if len(arguments) > 1 else NONE
                thing.writes.append(self.event("write", things=(thing.id,), labels=given | key))
            thing.labels |= frozenset(x for x in given if not x.startswith(("loss:", "fn:"))) - {"TGT"}
        if not base.things:
            return Value(labels | given)
        return base

    def appended(self, base: Value, arguments: list[Value], given: frozenset[str]) -> Value:
        """Append to a list: losses, or tokens under a key that tokens decide."""
        value = arguments[-1] if arguments else Value()
        for thing in base.things[:6]:
            if thing.kind in ("model",):
                thing.attributes[f"_{len(thing.attributes)}"] = value
            if has(given, "loss:"):
                self.add(thing, given)
            thing.element = value if thing.element is None else join(value, thing.element)
            self.effects += 1
        return NOTHING

    # --- training -----------------------------------------------------------------------------------------------------

    def step(self, parameters: Value, labels: frozenset[str]) -> None:
        """Record that parameters move along a gradient that a program applied by itself."""
        found = tuple(sorted(self.parameters_of(parameters)))
        losses = tuple(sorted(set(numbers(labels, "loss:")) | set(self.pending)))
        self.update(found, losses, "step", labels)

    def changed(self, parameters: Value, labels: frozenset[str]) -> None:
        """Record that parameters are set from data: copied, calibrated, or taken from another model."""
        found = tuple(sorted(self.parameters_of(parameters)))
        events = {}
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
        elif "sel" in labels:
            self.update(found, (), "select", labels)

    def m_backward(
        self, base: Value, arguments: list[Value], named: dict[str, Value], given: frozenset[str], node: ast.Call
    ) -> Value:
        losses = numbers(base.all_labels(), "loss:")
        self.pending = [*self.pending[-40:], *losses]
        self.event("backward", losses=tuple(losses), labels=base.all_labels())
        return NOTHING

    def m_step(
        self, base: Value, arguments: list[Value], named: dict[str, Value], given: frozenset[str], node: ast.Call
    ) -> Value:
        for value in (*arguments, *named.values()):
            if value.things and value.things[0].kind in ("function", "method"):
                self.call(value, [], {}, None)
        optimizers = [t for value in (base, *arguments) for t in value.things if t.kind == "optimizer"]
        for thing in optimizers:
            labels: frozenset[str] = NONE
            for number in self.pending:
                labels |= self.losses[number].labels
            self.update(thing.parameters, tuple(self.pending), "step", labels)
        if optimizers:
            self.pending = list(self.pending)
        return NOTHING

    def m_zero_grad(
        self, base: Value, arguments: list[Value], named: dict[str, Value], given: frozenset[str], node: ast.Call
    ) -> Value:
        self.pending = []
        return NOTHING

    def m_requires_grad_(
        self, base: Value, arguments: list[Value], named: dict[str, Value], given: frozenset[str], node: ast.Call
    ) -> Value:
        if arguments and arguments[0].const is False:
            return base
        labels = base.labels
        made: list[Thing] = []
        for thing in base.things or (self.thing("tensor"),):
            if thing.kind == "tensor":
                thing.kind = "leaf"
            if thing.kind == "leaf":
                labels |= {f"m:{thing.id}"}
            made.append(thing)
        return Value(labels, base.const, tuple(made))

    def m_load_state_dict(
        self, base: Value, arguments: list[Value], named: dict[str, Value], given: frozenset[str], node: ast.Call
    ) -> Value:
        if any(thing.kind == "optimizer" for thing in base.things):
            return NOTHING
        labels = given
        for value in arguments:
            labels |= {f"m:{number}" for number in self.parameters_of(value)}
        self.changed(base, labels)
        return NOTHING

    def m_register_forward_hook(
        self, base: Value, arguments: list[Value], named: dict[str, Value], given: frozenset[str], node: ast.Call
    ) -> Value:
        self.hooks += arguments[:1]
        return Value()

    m_register_forward_pre_hook = m_register_forward_hook

    # --- containers and files -----------------------------------------------------------------------------------------

    def m_get(
        self, base: Value, arguments: list[Value], named: dict[str, Value], given: frozenset[str], node: ast.Call
    ) -> Value:
        if not arguments:
            return Value(base.all_labels() | {"src"})
        if known(arguments[0]):
            found = [
                t.attributes[str(arguments[0].const)] for t in base.things if str(arguments[0].const) in t.attributes
            ]
            if found:
                return join(*found)
        default = arguments[1:2]
        found_value = self.item(base, arguments[0], None)
        return join(found_value, *default) if default and default[0].things else found_value

    def m_setdefault(
        self, base: Value, arguments: list[Value], named: dict[str, Value], given: frozenset[str], node: ast.Call
    ) -> Value:
        found = self.m_get(base, arguments, named, given, node)
        if len(arguments) > 1:
            for thing in base.things[:6]:
                self.fill(thing, arguments[1], arguments[0].all_labels(), aggregate=False)
        return found

    def m_pop(
        self, base: Value, arguments: list[Value], named: dict[str, Value], given: frozenset[str], node: ast.Call
    ) -> Value:
        return self.call_element(base).with_labels("src")

    m_popleft = m_pop

    def m_items(
        self, base: Value, arguments: list[Value], named: dict[str, Value], given: frozenset[str], node: ast.Call
    ) -> Value:
        thing = self.thing("generator")
        inner = self.call_element(base)
        if inner.items is not None and len(inner.items) == 2:
            return base
        thing.element = Value(items=(Value(base.labels), inner))
        return Value(base.all_labels(), things=(thing,))

    def m_values(
        self, base: Value, arguments: list[Value], named: dict[str, Value], given: frozenset[str], node: ast.Call
    ) -> Value:
        thing = self.thing("generator")
        inner = self.call_element(base)
        thing.element = inner.items[1] if inner.items is not None and len(inner.items) == 2 else inner
        return Value(base.all_labels(), things=(thing,))

    def m_update(
        self, base: Value, arguments: list[Value], named: dict[str, Value], given: frozenset[str], node: ast.Call
    ) -> Value:
        """Update a dict, or count tokens with a Counter."""
        for thing in base.things[:6]:
            for value in arguments:
                thing.attributes.update(
                    {k: v for t in value.things for k, v in t.attributes.items() if t.kind == "dict"}
                )
                inner = self.call_element(value)
                thing.element = inner if thing.element is None else join(inner, thing.element)
            if "VAL" in given and not has(given, "loss:"):
                thing.writes.append(self.event("write", things=(thing.id,), labels=given))
        return NOTHING

    def m_write(
        self, base: Value, arguments: list[Value], named: dict[str, Value], given: frozenset[str], node: ast.Call
    ) -> Value:
        for thing in base.things:
            if "place" in thing.attributes and has(given, "m:"):
                self.disk[str(thing.attributes["place"].const)] = given
        return Value()

    def m_write_bytes(
        self, base: Value, arguments: list[Value], named: dict[str, Value], given: frozenset[str], node: ast.Call
    ) -> Value:
        self.disk[self.place(base, None) or ast.unparse(node.func)[:200]] = given
        return Value()

    def m_read(
        self, base: Value, arguments: list[Value], named: dict[str, Value], given: frozenset[str], node: ast.Call
    ) -> Value:
        return Value(base.all_labels())

    def m_read_bytes(
        self, base: Value, arguments: list[Value], named: dict[str, Value], given: frozenset[str], node: ast.Call
    ) -> Value:
        key = self.place(base, None)
        if key in self.disk:
            return Value(self.disk[key])
        labels = base.all_labels()
        return Value(labels if labels & DATA else labels | {"blob"})

    m_read_text = m_read_bytes

    def m_log2(
        self, base: Value, arguments: list[Value], named: dict[str, Value], given: frozenset[str], node: ast.Call
    ) -> Value:
        self.scored(base.all_labels())
        return Value(base.all_labels() | {"ln2"})

    def m_getvalue(
        self, base: Value, arguments: list[Value], named: dict[str, Value], given: frozenset[str], node: ast.Call
    ) -> Value:
        return Value(base.all_labels())

    def m_submit(
        self, base: Value, arguments: list[Value], named: dict[str, Value], given: frozenset[str], node: ast.Call
    ) -> Value:
        return self.run_given(arguments, named, given)

    m_map = m_starmap = m_apply_async = m_submit

    def add(self, thing: Thing, labels: frozenset[str]) -> None:
        raise NotImplementedError

    def fill(self, thing: Thing, value: Value, at: frozenset[str], *, aggregate: bool) -> None:
        raise NotImplementedError
