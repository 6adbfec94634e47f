"""Model the functions of Python, numpy and torch: where a result comes from, by where the arguments came from."""

from __future__ import annotations

import ast
from abc import abstractmethod

from golfcore.contest.flow import words
from golfcore.contest.flow.expressions import Expressions, size_labels
from golfcore.contest.flow.network import reached
from golfcore.contest.flow.state import Scope, known
from golfcore.contest.flow.values import DATA, NONE, Call, Thing, Value, has, join, mixed, numbers

_CONTAINERS = ("list", "dict", "generator")
MANY = 100_000  # tokens from which on a bound on the validation split is no size of a batch


class Library(Expressions):
    """Functions of libraries: the origin of their results, and the objects that they make."""

    def library(
        self,
        function: Value,
        arguments: list[Value],
        named: dict[str, Value],
        node: ast.Call | None,
        scope: Scope | None,
    ) -> Value:
        """Return the result of a function that the entry does not define."""
        path = next((label[3:] for label in sorted(function.labels) if label.startswith("fn:")), "")
        name = path.rpartition(".")[2]
        if path:
            self.names_called.add(path)
        given = mixed(*arguments, *named.values())
        labels = frozenset(label for label in given.labels if not label.startswith("fn:"))
        if network := self.network(path, name, arguments, named, labels):
            return network
        special = getattr(self, "f_" + name, None)
        if special is not None:
            result: Value = special(Call(arguments, named, labels, path))
            return result
        if name in words.LOSS:
            return self.counted_loss(arguments, named)
        if name in words.MAKES:
            return self.made(name, arguments, named, labels)
        if name in words.READS:
            return self.read_file(arguments, labels, node)
        if name in words.STATISTICS and "VAL" in labels and not has(labels, "m:"):
            self.event("statistic", labels=labels)
            statistic = f"st:{len(self.events) - 1}"
            table = self.thing("tensor")
            table.writes.append(self.event("write", things=(table.id,), labels=labels))
            return Value(labels | {statistic}, things=(table,))
        if name in words.BEST:
            return self.best(name, arguments, labels)
        if name in words.POSITIONS or (name == "where" and len(arguments) == 1):
            return Value(labels - DATA)
        if name in words.SHAPES:
            return self.shape(name, arguments, labels)
        if name in words.HASHES:
            return Value(labels | ({"hashed"} if "TGT" in labels else NONE))
        if name in words.SAME or name == "":
            return self.same(arguments, labels)
        if name in words.RUNS or any(
            value.things and value.things[0].kind in ("function", "method") for value in arguments
        ):
            return self.run_given(arguments, named, labels)
        return self.other(path, name, arguments, named, labels)

    def network(
        self, path: str, name: str, arguments: list[Value], named: dict[str, Value], labels: frozenset[str]
    ) -> Value | None:
        """Record a download, and return what it gives; None if the function is no download."""
        kind = reached(path, name, [*arguments, *named.values()])
        if not kind:
            return None
        self.event("network", labels=labels, note=f"{kind} by {path or name}")
        for value in arguments[1:2]:
            if isinstance(value.const, str):
                self.disk[value.const] = frozenset({"net"})
        if kind == "weights":
            return Value(frozenset({"net"}), things=(self.thing("model"),))
        return Value(labels | {"net"})

    def other(
        self, path: str, name: str, arguments: list[Value], named: dict[str, Value], labels: frozenset[str]
    ) -> Value:
        """Return the result of a function that nothing special is known of."""
        if name in ("softmax", "log_softmax"):
            return Value(labels | {"DIST"})
        if path.startswith("torch.optim") or (
            has(labels, "m:")
            and any(word in name.lower() for word in ("adam", "sgd", "muon", "optim", "lion", "lbfgs", "rmsprop"))
            and name[:1].isupper()
        ):
            return self.optimizer(name, arguments, named)
        if path.startswith(("torch.nn.", "transformers.")) and name[:1].isupper():
            made = self.thing("model")
            made.element = (
                join(*arguments) if arguments and name in ("ModuleList", "Sequential", "ModuleDict") else None
            )
            for index, part in enumerate(arguments):
                if part.things:
                    made.attributes[f"_{index}"] = part
            return Value(things=(made,))
        if "TGT" in labels and (has(labels, "m:") or "DIST" in labels) and not has(labels, "loss:"):
            return self.loss(labels)
        if "TGT" in labels and name in words.HASH_OPERATIONS and not has(labels, "m:"):
            labels |= {"hashed"}
        if name not in words.PASSES and name not in words.HASH_OPERATIONS:
            labels -= {"TGT"}  # what a function makes of true tokens is not the true token itself
        things = tuple(t for value in arguments for t in value.things if t.kind == "model")
        return Value(labels, things=things[:4])

    def counted_loss(self, arguments: list[Value], named: dict[str, Value]) -> Value:
        """Return the loss of a cross entropy: of what the target is, only that it is the target."""
        target = named.get("target", arguments[1] if len(arguments) > 1 else Value())
        logits = named.get("input", arguments[0] if arguments else Value())
        kept = frozenset(
            label
            for label in target.all_labels()
            if label in DATA or label.startswith("i:") or label in ("src", "part")
        )
        return self.loss(logits.all_labels() | kept, kept)

    def made(self, name: str, arguments: list[Value], named: dict[str, Value], labels: frozenset[str]) -> Value:
        """Return a new tensor or container."""
        if name == "Counter" and "VAL" in labels and not has(labels, "m:"):
            self.event("statistic", labels=labels)
            thing = self.thing("dict")
            thing.writes.append(self.event("write", things=(thing.id,), labels=labels))
            return Value(things=(thing,))
        thing = self.thing("dict" if name in words.DICTS else "list" if name == "deque" else "tensor")
        if name in ("array", "deque", "BytesIO") or (name == "dict" and arguments):
            thing.labels |= labels
            thing.element = join(*(self.inner(value) for value in arguments)) if arguments else None
        if name == "dict":
            thing.attributes.update(named)
        if name == "arange":
            return Value(frozenset(label for label in labels if label.startswith("i:")))
        leaf = named.get("requires_grad")
        if leaf is not None and leaf.const is True:
            thing.kind = "leaf"
            return Value(frozenset({f"m:{thing.id}"}), things=(thing,))
        return Value(NONE if name != "array" else labels, things=(thing,))

    def inner(self, value: Value) -> Value:
        """Return what a container holds."""
        held = [thing.element for thing in value.things if thing.element is not None]
        return join(*held) if held else Value(value.all_labels())

    def read_file(self, arguments: list[Value], labels: frozenset[str], node: ast.Call | None) -> Value:
        """Return what is read from a file: shards if its name says so, what was saved under it, else a blob."""
        data = labels & {"VAL", "TRAIN"}
        if data:
            return Value(labels - {"names"})
        key = self.place(arguments[0] if arguments else Value(), node)
        if key in self.disk:
            return Value(self.disk[key])
        mode = arguments[1].const if len(arguments) > 1 and isinstance(arguments[1].const, str) else ""
        if "w" in mode or "a" in mode:
            thing = self.thing("file")
            thing.attributes["place"] = Value(NONE, key)
            return Value(things=(thing,))
        return Value(labels | {"blob"})

    def place(self, path: Value, node: ast.Call | None) -> str:
        """Return a name for where a file lies: its path if that is known, else how the program writes it."""
        if isinstance(path.const, str):
            return path.const
        return ast.unparse(node.args[0])[:200] if node is not None and node.args else ""

    def best(self, name: str, arguments: list[Value], labels: frozenset[str]) -> Value:
        """Return the least or greatest of several values: of losses of tokens, that is an answer's choice."""
        if len(arguments) == 1 and arguments[0].items is not None:
            arguments = list(arguments[0].items)
        if len(arguments) >= 2:
            if all(known(value) and isinstance(value.const, (int, float)) for value in arguments) and name in (
                "min",
                "max",
            ):
                return Value(labels, (min if name == "min" else max)(value.const for value in arguments))
            sides = [set(numbers(value.all_labels(), "loss:")) for value in arguments]
            read = [v for v, side in zip(arguments, sides, strict=True) if not side and "tread" in v.all_labels()]
            sides = [side for side in sides if side]
            if (len(sides) >= 2 and sides[0] != sides[1]) or (sides and read):
                labels |= {"oracle"}
                self.marked.setdefault("oracle", self.site)
            small = any(isinstance(v.const, int) and v.const >= MANY for v in arguments)
            if small and "vsize" in labels and name == "min":
                labels |= {"part"}
            sums = [frozenset(numbers(value.all_labels(), "acc:")) for value in arguments]
            if len([side for side in sums if side]) >= 2 and "oracle" not in labels and len(set(sums)) > 1:
                self.event("best", labels=labels)
        elif len(arguments) == 1:
            stacked = arguments[0].all_labels()
            if "stacked" in stacked:
                labels |= {"oracle"}
                self.marked.setdefault("oracle", self.site)
            elif arguments[0].things and has(stacked, "acc:") and arguments[0].things[0].kind in _CONTAINERS:
                self.event("best", labels=labels)
        return Value(labels)

    def shape(self, name: str, arguments: list[Value], labels: frozenset[str]) -> Value:
        if name == "len" and arguments:
            if isinstance(arguments[0].const, (str, bytes, list, tuple, range)):
                return Value(NONE, len(arguments[0].const))
            return Value(labels & {"blob", "part", "cls", "bytes", "enc"} | size_labels(labels))
        return Value()

    def same(self, arguments: list[Value], labels: frozenset[str]) -> Value:
        return arguments[0] if len(arguments) == 1 else join(*arguments) if arguments else Value()

    def run_given(self, arguments: list[Value], named: dict[str, Value], labels: frozenset[str]) -> Value:
        """Call the functions that are given to a function which will call them."""
        extra = named.get("args", Value())
        functions = [value for value in (*arguments, *named.values()) if value.things]
        functions = [v for v in functions if v.things[0].kind in ("function", "method", "partial")]
        rest = [value for value in arguments if value not in functions]
        rest = [Value(value.all_labels() - {"fn"}, value.const, value.things, value.items) for value in rest]
        rest += list(extra.items or ())
        results = [self.call(function, rest, {}, None) for function in functions[:4]]
        if results:
            return join(*results)
        return Value(labels)

    def optimizer(self, name: str, arguments: list[Value], named: dict[str, Value]) -> Value:
        """Make an optimizer of the parameters that it is given."""
        labels = mixed(*arguments, *named.values()).labels
        parameters: set[int] = set(numbers(labels, "m:"))
        for value in (*arguments, *named.values()):
            parameters |= self.parameters_of(value)
        thing = self.thing("optimizer", parameters=tuple(sorted(parameters)))
        return Value(things=(thing,))

    def parameters_of(self, value: Value) -> set[int]:
        """Return the numbers of all parameters within a value."""
        found: set[int] = set(numbers(value.labels, "m:"))
        queue: list[Thing] = list(value.things)
        for item in value.items or ():
            found |= self.parameters_of(item)
        seen: set[int] = set()
        while queue and len(seen) < 300:
            thing = queue.pop()
            if thing.id in seen or thing.kind in ("function", "class", "method", "module"):
                continue
            seen.add(thing.id)
            if thing.kind in ("model", "leaf"):
                found.add(thing.id)
            for name, part in list(thing.attributes.items())[:200]:
                if name != "owner":
                    queue += part.things
                    found |= set(numbers(part.labels, "m:"))
            if thing.element is not None:
                queue += thing.element.things
                found |= set(numbers(thing.element.labels, "m:"))
        return found

    @abstractmethod
    def module(self, name: str) -> Value: ...
