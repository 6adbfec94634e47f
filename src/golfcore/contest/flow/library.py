"""Say what the functions of Python, numpy and torch do to the origin of values."""

from __future__ import annotations

import ast
import math
from typing import Any

from golfcore.contest.flow.expressions import Expressions
from golfcore.contest.flow.state import Scope, known, split_labels
from golfcore.contest.flow.values import DATA, NONE, NOTHING, UNKNOWN, Thing, Value, has, join, mixed, numbers

_LOSS = {"cross_entropy", "nll_loss", "fused_cross_entropy", "linear_cross_entropy"}
_MAKES = {"zeros", "empty", "ones", "full", "randn", "rand", "zeros_like", "empty_like", "ones_like", "full_like",
          "randn_like", "zeros_", "arange", "defaultdict", "Counter", "OrderedDict", "dict", "deque", "array"}  # fmt: skip
_DICTS = {"defaultdict", "Counter", "OrderedDict", "dict"}
_READS = {"fromfile", "memmap", "load", "loadtxt", "open", "frombuffer", "load_file", "b85decode", "b64decode", "a85decode",
          "read_bytes", "unpackbits", "loads", "from_buffer"}  # fmt: skip
_STATISTICS = {"bincount", "histc", "unique", "Counter", "histogram", "value_counts", "unique_consecutive"}
_BEST = {"minimum", "fmin", "min", "amin", "maximum", "fmax", "max", "amax", "nanmin", "sorted"}
_SAME = {"compile", "jit", "njit", "DistributedDataParallel", "DataParallel", "script", "no_grad", "inference_mode", "autocast",
         "ScriptModule", "prange", "tqdm", "trange", "iter", "list", "tuple", "reversed", "checkpoint", "cast", "wraps", "cache",
         "set", "frozenset", "Path", "fspath", "abspath", "expanduser", "str", "lru_cache", "cpu", "pin_memory"}  # fmt: skip
_RUNS = {"submit", "Thread", "Process", "spawn", "map", "starmap", "start_processes", "run_in_executor", "imap", "apply_async",
         "checkpoint", "Timer", "vmap", "run", "main", "timeit", "filter", "reduce", "apply_along_axis", "vectorize"}  # fmt: skip
_SHAPES = {"len", "isinstance", "hasattr", "id", "type", "callable", "issubclass", "numel", "is_tensor", "is_available",
           "perf_counter", "time", "get_rank", "get_world_size", "is_initialized", "device_count", "current_device"}  # fmt: skip
_HASHES = {"hash", "crc32", "adler32", "md5", "sha1", "sha256", "blake2b", "xxh64", "xxh32", "murmur3", "fnv1a"}


class Library(Expressions):
    """What the functions of libraries do."""

    def library(self, function: Value, arguments: list[Value], named: dict[str, Value], node: ast.Call | None,
                scope: Scope | None) -> Value:  # fmt: skip
        """Return the result of a function that the entry does not define."""
        path = next((label[3:] for label in sorted(function.labels) if label.startswith("fn:")), "")
        name = path.rpartition(".")[2]
        if path:
            self.names_called.add(path)
        given = mixed(*arguments, *named.values())
        labels = frozenset(label for label in given.labels if not label.startswith("fn:"))
        special = getattr(self, "f_" + name, None)
        if special is not None:
            result: Value = special(arguments, named, labels, path)
            return result
        if name in _LOSS:
            return self.counted_loss(arguments, named)
        if name in _MAKES:
            return self.made(name, arguments, named, labels)
        if name in _READS:
            return self.read_file(arguments, labels, node)
        if name in _STATISTICS and "VAL" in labels and not has(labels, "m:"):
            event = self.event("statistic", labels=labels)
            return Value(labels | {f"st:{self.events.index(event)}"})
        if name in _BEST:
            return self.best(name, arguments, labels)
        if name in _SHAPES:
            return self.shape(name, arguments, labels)
        if name in _HASHES:
            return Value(labels | ({"hashed"} if "TGT" in labels else NONE))
        if name in _SAME or name == "":
            return self.same(arguments, labels)
        if name in _RUNS or any(value.things and value.things[0].kind in ("function", "method") for value in arguments):
            return self.run_given(arguments, named, labels)
        return self.other(path, name, arguments, named, labels)

    def other(
        self, path: str, name: str, arguments: list[Value], named: dict[str, Value], labels: frozenset[str]
    ) -> Value:
        """Return the result of a function that nothing special is known of."""
        if name in ("softmax", "log_softmax"):
            return Value(labels | {"DIST"})
        if path.startswith("torch.optim") or (has(labels, "m:") and any(
            word in name.lower() for word in ("adam", "sgd", "muon", "optim", "lion", "lbfgs", "rmsprop")
        ) and name[:1].isupper()):  # fmt: skip
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
        return self.loss((logits.all_labels() - {"cls"}) | kept)

    def made(self, name: str, arguments: list[Value], named: dict[str, Value], labels: frozenset[str]) -> Value:
        """Return a new tensor or container."""
        if name == "Counter" and "VAL" in labels and not has(labels, "m:"):
            self.event("statistic", labels=labels)
            thing = self.thing("dict")
            thing.writes.append(self.event("write", things=(thing.id,), labels=labels))
            return Value(things=(thing,))
        thing = self.thing("dict" if name in _DICTS else "list" if name == "deque" else "tensor")
        if name in ("array", "deque") or (name == "dict" and arguments):
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
            return Value(labels)
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
            sides = [side for side in sides if side]
            if len(sides) >= 2 and sides[0] != sides[1]:
                labels |= {"oracle"}
                self.marked.setdefault("oracle", self.site)
            sums = [frozenset(numbers(value.all_labels(), "acc:")) for value in arguments]
            if len([side for side in sums if side]) >= 2 and "oracle" not in labels and len(set(sums)) > 1:
                self.event("best", labels=labels)
        elif len(arguments) == 1:
            stacked = arguments[0].all_labels()
            if "stacked" in stacked:
                labels |= {"oracle"}
                self.marked.setdefault("oracle", self.site)
            elif any(self.things[n].kind == "list" and len(self.things[n].adds) > 0 for n in numbers(stacked, "acc:")):
                self.event("best", labels=labels)
        return Value(labels)

    def shape(self, name: str, arguments: list[Value], labels: frozenset[str]) -> Value:
        if name == "len" and arguments:
            if isinstance(arguments[0].const, (str, bytes, list, tuple, range)):
                return Value(NONE, len(arguments[0].const))
            return Value(labels & {"blob", "part", "cls", "bytes", "enc"})
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

    # --- functions with a meaning of their own ------------------------------------------------------------------------

    def f_get(self, arguments: list[Value], named: dict[str, Value], labels: frozenset[str], path: str) -> Value:
        return self.environment(arguments, path) if "environ" in path else Value(labels)

    def f_getenv(self, arguments: list[Value], named: dict[str, Value], labels: frozenset[str], path: str) -> Value:
        return self.environment(arguments, "environ")

    def environment(self, arguments: list[Value], path: str) -> Value:
        """Return a variable of the environment: as logs and scripts set it, else its default."""
        name = arguments[0].const if arguments and isinstance(arguments[0].const, str) else ""
        default = arguments[1] if len(arguments) > 1 else Value()
        found = self.settings.get(name, self.settings.get(name.lower()))
        if found is not None:
            return Value(split_labels(found) | default.labels | {"env"}, found)
        return default.with_labels("env")

    def f_int(self, arguments: list[Value], named: dict[str, Value], labels: frozenset[str], path: str) -> Value:
        return _converted(int, arguments, labels)

    def f_float(self, arguments: list[Value], named: dict[str, Value], labels: frozenset[str], path: str) -> Value:
        return _converted(float, arguments, labels)

    def f_bool(self, arguments: list[Value], named: dict[str, Value], labels: frozenset[str], path: str) -> Value:
        return _converted(bool, arguments, labels)

    def f_range(self, arguments: list[Value], named: dict[str, Value], labels: frozenset[str], path: str) -> Value:
        if (
            all(isinstance(value.const, int) and not isinstance(value.const, bool) for value in arguments)
            and 0 < len(arguments) <= 3
        ):
            numbers_ = [value.const for value in arguments]
            if all(abs(n) < 1 << 62 for n in numbers_) and (len(numbers_) < 3 or numbers_[2]):
                return Value(labels, range(*numbers_))
        thing = self.thing("range")
        thing.attributes["start"] = arguments[0] if len(arguments) > 1 else Value(NONE, 0)
        thing.attributes["stop"] = Value(labels - DATA)
        return Value(labels - DATA, things=(thing,))

    def f_enumerate(self, arguments: list[Value], named: dict[str, Value], labels: frozenset[str], path: str) -> Value:
        thing = self.thing("enumerate")
        thing.element = arguments[0] if arguments else Value()
        return Value(things=(thing,))

    def f_zip(self, arguments: list[Value], named: dict[str, Value], labels: frozenset[str], path: str) -> Value:
        thing = self.thing("generator")
        thing.element = Value(items=tuple(self.call_element(value) for value in arguments))
        return Value(things=(thing,))

    def call_element(self, value: Value) -> Value:
        if value.items is not None:
            return join(*value.items) if value.items else Value()
        held = [thing.element for thing in value.things if thing.element is not None]
        return join(*held, Value(value.all_labels())) if held else Value(value.all_labels())

    def f_next(self, arguments: list[Value], named: dict[str, Value], labels: frozenset[str], path: str) -> Value:
        return self.call_element(arguments[0]).with_labels("src") if arguments else Value()

    def f_log(self, arguments: list[Value], named: dict[str, Value], labels: frozenset[str], path: str) -> Value:
        if arguments and arguments[0].const in (2, 2.0) and known(arguments[0]):
            return Value(frozenset({"ln2"}), math.log(2))
        return Value(labels)

    def f_log2(self, arguments: list[Value], named: dict[str, Value], labels: frozenset[str], path: str) -> Value:
        self.scored(labels)
        return Value(labels | {"ln2"})

    def f_where(self, arguments: list[Value], named: dict[str, Value], labels: frozenset[str], path: str) -> Value:
        if len(arguments) < 3:
            return Value(labels)
        return self.chosen(
            arguments[0].all_labels(), Value(mixed(*arguments[1:]).labels | _kept(arguments[0].all_labels()))
        )

    def f_stack(self, arguments: list[Value], named: dict[str, Value], labels: frozenset[str], path: str) -> Value:
        parts = list(arguments[0].items or ()) if arguments else []
        sides = [set(numbers(value.all_labels(), "loss:")) for value in parts]
        several = len([side for side in sides if side]) > 1 and len({frozenset(side) for side in sides if side}) > 1
        accs = has(labels, "acc:") and len(set(numbers(labels, "loss:"))) > 1
        return Value(labels | ({"stacked"} if several or accs else NONE))

    def f_Parameter(self, arguments: list[Value], named: dict[str, Value], labels: frozenset[str], path: str) -> Value:
        thing = self.thing("leaf")
        return Value(labels | {f"m:{thing.id}"}, things=(thing,))

    def f_grad(self, arguments: list[Value], named: dict[str, Value], labels: frozenset[str], path: str) -> Value:
        losses = tuple(numbers(arguments[0].all_labels(), "loss:")) if arguments else ()
        leaves = tuple(numbers(mixed(*arguments[1:]).labels, "m:"))
        event = self.event("step", things=leaves, losses=losses, labels=labels)
        return Value(
            frozenset({"grad", f"ad:{self.events.index(event)}"}) | (labels & DATA) | {f"loss:{n}" for n in losses}
        )

    def f_deepcopy(self, arguments: list[Value], named: dict[str, Value], labels: frozenset[str], path: str) -> Value:
        return self.copied(arguments[0], {}) if arguments else Value()

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

    def f_partial(self, arguments: list[Value], named: dict[str, Value], labels: frozenset[str], path: str) -> Value:
        if not arguments or not arguments[0].things:
            return Value(labels)
        thing = self.thing("partial")
        thing.element = arguments[0]
        thing.attributes["args"] = Value(items=tuple(arguments[1:]))
        return Value(things=(thing,))

    def f_getattr(self, arguments: list[Value], named: dict[str, Value], labels: frozenset[str], path: str) -> Value:
        if len(arguments) > 1 and isinstance(arguments[1].const, str):
            return self.attribute(arguments[0], arguments[1].const)
        return Value(labels)

    def f_setattr(self, arguments: list[Value], named: dict[str, Value], labels: frozenset[str], path: str) -> Value:
        if len(arguments) > 2 and isinstance(arguments[1].const, str):
            for thing in arguments[0].things:
                thing.attributes[arguments[1].const] = arguments[2]
        return NOTHING

    def f_import_module(
        self, arguments: list[Value], named: dict[str, Value], labels: frozenset[str], path: str
    ) -> Value:
        name = arguments[0].const if arguments else None
        return self.module(name) if isinstance(name, str) else Value()

    f___import__ = f_import_module

    def f_join(self, arguments: list[Value], named: dict[str, Value], labels: frozenset[str], path: str) -> Value:
        if arguments and all(isinstance(value.const, str) for value in arguments):
            text = "/".join(value.const for value in arguments)[:2_000]
            return Value(labels | split_labels(text), text)
        return Value(labels)

    def f_save(self, arguments: list[Value], named: dict[str, Value], labels: frozenset[str], path: str) -> Value:
        if len(arguments) > 1:
            first, second = arguments[0], arguments[1]
            target, content = (first, second) if path.startswith(("np.", "numpy.")) else (second, first)
            key = self.place(target, None) or next(
                (t.attributes["place"].const for t in target.things if "place" in t.attributes), ""
            )
            for thing in target.things:
                thing.labels |= content.all_labels() | {f"m:{n}" for n in self.parameters_of(content)}
            self.disk[key] = content.all_labels() | {f"m:{n}" for n in self.parameters_of(content)}
        return NOTHING

    def f_add_at(self, arguments: list[Value], named: dict[str, Value], labels: frozenset[str], path: str) -> Value:
        return NOTHING

    def f_at(self, arguments: list[Value], named: dict[str, Value], labels: frozenset[str], path: str) -> Value:
        """Add to the elements of an array, as ``np.add.at`` does."""
        if len(arguments) > 1:
            for thing in arguments[0].things:
                thing.writes.append(self.event("write", things=(thing.id,), labels=labels))
        return NOTHING

    def f_manual_seed(self, arguments: list[Value], named: dict[str, Value], labels: frozenset[str], path: str) -> Value:
        self.event("seed", labels=labels)
        return NOTHING

    f_seed = f_manual_seed_all = f_set_seed = f_manual_seed

    def module(self, name: str) -> Value:
        raise NotImplementedError


def _converted(kind: Any, arguments: list[Value], labels: frozenset[str]) -> Value:
    if arguments and known(arguments[0]) and isinstance(arguments[0].const, (int, float, str, bool)):
        try:
            return Value(labels, kind(arguments[0].const))
        except (ValueError, OverflowError):
            return Value(labels)
    return Value(labels, UNKNOWN)


def _kept(labels: frozenset[str]) -> frozenset[str]:
    """Return what a condition passes on to the value that it chooses."""
    return frozenset(x for x in labels if x.startswith(("rd:", "st:")) or x in ("tkey", "bkey", "sel"))
