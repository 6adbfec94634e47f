"""Put a recipe's values into the code that reads them, and drop the branches that this recipe never takes."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from golfcore.config import RecipeConfig

# By module: what a name stands for whose attributes are keys of a section of the recipe.
READERS: Mapping[str, Mapping[str, str]] = {
    "golfcore.model.gpt": {"config": "model"},
    "golfcore.optim.optimizers": {"config": "optim"},
    "golfcore.optim.routing": {"config": "optim"},
    "golfcore.optim.schedule": {"train": "train", "optim": "optim"},
    "golfcore.quant": {"config": "quant"},
    "golfcore.export.runtime.train": {"config": "train"},
    "golfcore.export.runtime.quantize": {"quant": "quant"},
}
# By module: names that are None in every script. Every rank computes every update, so nothing shares them out.
ABSENT: Mapping[str, set[str]] = {"golfcore.optim.optimizers": {"ranks"}}
UNMIXED: Mapping[str, set[str]] = {"golfcore.evaluate.booking": {"mixture"}}
DECODER = "golfcore.container.plain_decoder"
SECTIONS = ("model", "optim", "train", "quant", "eval", "track")
# Keys that the script itself changes: by the environment, or while it quantizes.
CHANGED = {"train.seed", "train.iterations", "quant.states", "quant.group_k", "quant.fit"}
OPERATIONS: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.Is: operator.is_, ast.IsNot: operator.is_not,
    ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
}  # fmt: skip


def folded(tree: ast.Module, module: str, recipe: RecipeConfig, codecs: frozenset[int]) -> ast.Module:
    """Return the tree of a module for one recipe; it is changed in place. ``codecs`` are those to decode."""
    names = next((found for prefix, found in READERS.items() if f"{module}.".startswith(f"{prefix}.")), {})
    for _ in range(2):  # the second time with what __init__ has made constant
        tree = _Fold(names, recipe, module, codecs).visit(tree)
    return tree


class _Fold(ast.NodeTransformer):
    def __init__(
        self, names: Mapping[str, str], recipe: RecipeConfig, module: str, codecs: frozenset[int]
    ) -> None:  # fmt: skip
        self._names, self._recipe = names, recipe
        self._absent = ABSENT.get(module, set()) | (UNMIXED.get(module, set()) if recipe.eval.adapt != "mix" else set())
        self._codecs = codecs if module == DECODER else None
        self._whole = module.startswith("golfcore.export.runtime")
        self._own: dict[str, ast.Constant] = {}  # constant attributes of the class

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        outer, self._own = self._own, _constants(node)
        self.generic_visit(node)
        self._own = outer
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        if not isinstance(node.ctx, ast.Load):
            return node
        base = node.value
        if isinstance(base, ast.Name) and base.id == "self" and node.attr in self._own:
            return self._own[node.attr]
        section = None
        if isinstance(base, ast.Name):
            section = self._names.get(base.id)
        elif isinstance(base, ast.Attribute) and isinstance(base.value, ast.Name):
            if base.value.id == "self":
                section = self._names.get(base.attr)
            elif base.value.id == "recipe" and self._whole and base.attr in SECTIONS:
                section = base.attr
        if section is None or f"{section}.{node.attr}" in CHANGED:
            return node
        values = getattr(self._recipe, section)
        if not hasattr(values, node.attr) or callable(getattr(values, node.attr)):
            return node
        return ast.Constant(getattr(values, node.attr))

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Constant(None) if node.id in self._absent and isinstance(node.ctx, ast.Load) else node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        if self._codecs is not None and isinstance(node.left, ast.Name) and node.left.id == "codec":
            (wanted,) = node.comparators
            return node if getattr(wanted, "value", None) in self._codecs else ast.Constant(False)
        right = _value(node.comparators[0])
        if len(node.ops) == 1 and isinstance(node.left, ast.Constant) and right is not None:
            found = OPERATIONS.get(type(node.ops[0]))
            return ast.Constant(found(node.left.value, right[0])) if found else node
        return node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.op, ast.Not) and isinstance(node.operand, ast.Constant):
            return ast.Constant(not node.operand.value)
        return node

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        self.generic_visit(node)
        ends = isinstance(node.op, ast.Or)  # the truth that decides
        kept: list[ast.expr] = []
        for at, value in enumerate(node.values):
            if not isinstance(value, ast.Constant):
                kept.append(value)
            elif bool(value.value) == ends or at == len(node.values) - 1:
                kept.append(value)
                if bool(value.value) == ends:
                    break
        node.values = kept
        return kept[0] if len(kept) == 1 else node

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.test, ast.Constant):
            return node.body if node.test.value else node.orelse
        return node

    def visit_If(self, node: ast.If) -> Any:
        node.test = self.visit(node.test)
        if isinstance(node.test, ast.Constant):
            taken = node.body if node.test.value else node.orelse
            return [s for old in taken for s in _listed(self.visit(old))]
        self.generic_visit(node)
        return node

    def generic_visit(self, node: ast.AST) -> ast.AST:
        node = super().generic_visit(node)
        if getattr(node, "body", None) == []:
            node.body = [ast.Pass()]  # type: ignore[attr-defined]
        return _until_return(node)


def _until_return(node: ast.AST) -> ast.AST:
    """Drop what follows a ``return`` in a block."""
    body = getattr(node, "body", None)
    if isinstance(body, list):
        for at, statement in enumerate(body):
            if isinstance(statement, ast.Return):
                del body[at + 1 :]
                break
    return node


def _listed(found: Any) -> list[ast.stmt]:
    return found if isinstance(found, list) else [] if found is None else [found]


def _value(node: ast.expr) -> tuple[Any] | None:
    """Return the value of a constant or of a tuple of constants, in a tuple of its own."""
    if isinstance(node, ast.Constant):
        return (node.value,)
    if isinstance(node, ast.Tuple) and all(isinstance(e, ast.Constant) for e in node.elts):
        return (tuple(e.value for e in node.elts if isinstance(e, ast.Constant)),)
    return None


def _constants(node: ast.ClassDef) -> dict[str, ast.Constant]:
    """Return the attributes that a class sets once, in ``__init__``, to a constant."""
    found: dict[str, ast.Constant] = {}
    stored = [n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)]
    init = next((s for s in node.body if isinstance(s, ast.FunctionDef) and s.name == "__init__"), None)
    for part in init.body if init else []:
        if not isinstance(part, ast.Assign) or len(part.targets) != 1:
            continue
        target, value = part.targets[0], part.value
        pairs = [(target, value)]
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            pairs = list(zip(target.elts, value.elts, strict=False))
        for one, constant in pairs:
            if isinstance(one, ast.Attribute) and isinstance(constant, ast.Constant) and stored.count(one.attr) == 1:
                found[one.attr] = constant
    return found
