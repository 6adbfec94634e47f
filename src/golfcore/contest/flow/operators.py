"""Fold constants, and recognize subscripts and comparisons."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

from golfcore.contest.flow.state import Scope
from golfcore.contest.flow.values import UNKNOWN, Value, has

_OPERATORS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
    ast.Is: lambda a, b: a is b or (a == b and a is not None),
    ast.IsNot: lambda a, b: not (a is b or (a == b and a is not None)),
}


def is_shifted(node: ast.Subscript, scope: Scope) -> bool:
    """Return whether a subscript takes the tokens that follow: ``[1:]``, ``[:, 1:]``, ``[i + 1]``."""
    at = node.slice
    parts = at.elts if isinstance(at, ast.Tuple) else [at]
    for part in parts:
        start = part.lower if isinstance(part, ast.Slice) else part
        if isinstance(start, ast.Constant) and isinstance(part, ast.Slice) and start.value == 1:
            return True
        if isinstance(start, ast.BinOp) and isinstance(start.op, ast.Add) and _one(start.right):
            return True
    return ast.unparse(node) in scope.shifted if scope.shifted and len(parts) == 1 else False


def _one(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value == 1


def iterations(labels: frozenset[str]) -> frozenset[str]:
    return frozenset(label for label in labels if label.startswith("i:"))


def constant_part(node: ast.AST | None, at: frozenset[str]) -> bool:
    """Return whether a slice takes a fixed part: ``[:3_000_000]`` outside of what a loop gives it."""
    if not isinstance(node, ast.Slice) or node.upper is None or node.lower is not None or has(at, "i:"):
        return False
    upper = node.upper
    return isinstance(upper, ast.Constant) and isinstance(upper.value, int) and upper.value >= 10_000


def paid(left: frozenset[str], right: frozenset[str]) -> bool:
    """Return whether one side is a true token, and the other was read from a file, not by tokens."""
    return any(
        "TGT" in a and "blob" in b and "VAL" not in b and not has(b, "m:") for a, b in ((left, right), (right, left))
    )


def folded(op: type[ast.AST], left: Any, right: Any) -> Any:
    """Return the result of an operator on two small constants."""
    if left is UNKNOWN or right is UNKNOWN or op not in _OPERATORS:
        return UNKNOWN
    for side in (left, right):
        if isinstance(side, (str, bytes)) and len(side) > 2_000:
            return UNKNOWN
        if isinstance(side, int) and abs(side) > 1 << 62:
            return UNKNOWN
    if op is ast.Mult and not all(isinstance(side, (int, float)) for side in (left, right)):
        return UNKNOWN
    try:
        return _OPERATORS[op](left, right)
    except Exception:  # of hostile constants: any operator may raise anything of its own
        return UNKNOWN


def first_only(node: ast.AST) -> bool:
    """Return whether a subscript takes the first of several files: ``[0]``, ``[:1]``."""
    if isinstance(node, ast.Slice):
        return node.lower is None and isinstance(node.upper, ast.Constant) and node.upper.value in (1, 2, 3)
    return isinstance(node, ast.Constant) and node.value == 0


def side(node: ast.AST | None) -> frozenset[str]:
    """Return which side of a window a slice takes: ``head`` of ``[:s]``, ``tail`` of ``[s:]``, for a variable ``s``."""
    parts = node.elts if isinstance(node, ast.Tuple) else [node]
    last = next((part for part in reversed(parts) if isinstance(part, ast.Slice)), None)
    if last is None:
        return frozenset()
    lower, upper = last.lower, last.upper
    if lower is None and upper is not None and not _number(upper):
        return frozenset({"head"})
    return frozenset({"tail"}) if upper is None and lower is not None and not _number(lower) else frozenset()


def _number(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) or (isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Constant))


def length(iterable: Value | None) -> int:
    """Return how often a loop runs, if that is 0 or 1; else 2."""
    if iterable is None or "env" in iterable.labels:
        return 2
    if isinstance(iterable.const, (range, list, tuple, str)):
        return len(iterable.const)
    return len(iterable.items) if iterable.items is not None and len(iterable.items) < 2 else 2


def assigned(body: list[ast.stmt]) -> set[str]:
    """Return the names that a loop's body assigns."""
    return {
        node.id
        for part in body
        for node in ast.walk(part)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
