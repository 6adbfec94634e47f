"""Model the methods of tensors, containers, models and optimizers: where a result comes from."""

from __future__ import annotations

import ast

from golfcore.contest.flow.expressions import size_labels
from golfcore.contest.flow.state import Scope, known
from golfcore.contest.flow.training import Training
from golfcore.contest.flow.values import DATA, NONE, NOTHING, Call, Value, has, join, mixed
from golfcore.contest.flow.words import POSITIONS

_CHAINED = {
    "to",
    "cuda",
    "cpu",
    "float",
    "half",
    "bfloat16",
    "double",
    "long",
    "int",
    "eval",
    "train",
    "contiguous",
    "requires_grad_",
    "compile",
    "share_memory_",
    "pin_memory",
    "type",
    "apply",
    "copy_to",
    "unwrap",
}
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
_ADDS = {
    "add_",
    "sub_",
    "addmm_",
    "index_add_",
    "scatter_add_",
    "lerp_",
    "addcmul_",
    "addcdiv_",
    "baddbmm_",
    "index_put_",
    "scatter_",
    "mul_",
    "div_",
    "copy_",
    "masked_fill_",
    "clamp_",
    "fill_",
    "zero_",
    "index_copy_",
    "index_fill_",
}
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
_RESETS = {"normal_", "uniform_", "constant_", "zeros_", "kaiming_uniform_", "xavier_uniform_", "orthogonal_"}
_SCATTERS = {"index_add_", "scatter_add_", "index_put_", "scatter_"}


class Methods(Training):
    """Methods of objects that the entry does not define."""

    def method(
        self, base: Value, name: str, arguments: list[Value], named: dict[str, Value], node: ast.Call, scope: Scope
    ) -> Value:
        """Return the result of a method of a value."""
        special = getattr(self, "m_" + name, None)
        given = mixed(*arguments, *named.values())
        if special is not None:
            result: Value = special(Call(arguments, named, given.labels, "", base, node))
            return result
        labels = base.all_labels()
        if name in _SIZES:
            return Value(labels & {"part"} | size_labels(labels))
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
        result = labels | (given - {"TGT"})
        if name in POSITIONS:
            return Value(result - DATA)
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
            elif name in ("zero_", "fill_"):
                self.reset(base)
            return base
        self.collected(given)
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

    def collected(self, labels: frozenset[str]) -> None:
        """Record that activations of training data are summed, as calibration of a quantizer does."""
        if (
            "TRAIN" in labels
            and ("act" in labels or has(labels, "m:"))
            and not has(labels, "loss:")
            and "grad" not in labels
        ):
            self.event("hessian", labels=labels)

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
