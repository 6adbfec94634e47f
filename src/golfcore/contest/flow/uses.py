"""Find which names of a function are the tokens that it predicts, by how it uses them."""

from __future__ import annotations

import ast

from golfcore.contest.flow.state import is_target_name
from golfcore.contest.flow.values import NONE

_LOSSES = {"cross_entropy", "nll_loss", "CrossEntropyLoss", "NLLLoss"}
MAX_NODES = 60_000


def targets_of(nodes: list[ast.stmt]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the names that a body predicts, and the subscripts that read ahead of others of the same array.

    A name is predicted if it is called a target or is the target of a cross entropy. A subscript ``a[i]`` reads ahead
    if the body also has ``a[i - 1]`` or ``a[i - n : i]``.
    """
    names: set[str] = set()
    plain: dict[str, str] = {}
    behind: set[str] = set()
    for count, node in enumerate(n for body in nodes for n in ast.walk(body)):
        if count > MAX_NODES:
            break
        if isinstance(node, ast.Name) and is_target_name(node.id):
            names.add(node.id)
        elif isinstance(node, ast.Call):
            called = _called(node)
            if called in _LOSSES:
                names |= _names(_argument(node, 1, "target"))
        elif isinstance(node, ast.Subscript):
            _subscript(node, plain, behind)
    return frozenset(names), frozenset(plain[at] for at in behind & set(plain)) or NONE


def _subscript(node: ast.Subscript, plain: dict[str, str], behind: set[str]) -> None:
    """Note ``a[i]`` and what shows that ``i`` is the position that is predicted."""
    at = node.slice
    if isinstance(at, ast.Name) and isinstance(node.value, (ast.Name, ast.Attribute)):
        plain[f"{ast.unparse(node.value)}[{at.id}]"] = ast.unparse(node)
    lower = at.lower if isinstance(at, ast.Slice) else at
    upper = at.upper if isinstance(at, ast.Slice) else None
    if isinstance(node.value, (ast.Name, ast.Attribute)):
        array = ast.unparse(node.value)
        if isinstance(lower, ast.BinOp) and isinstance(lower.op, ast.Sub) and isinstance(lower.left, ast.Name):
            behind.add(f"{array}[{lower.left.id}]")
        if isinstance(upper, ast.Name):
            behind.add(f"{array}[{upper.id}]")


def _called(node: ast.Call) -> str:
    function = node.func
    return (
        function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""
    )


def _argument(node: ast.Call, index: int, name: str) -> ast.AST | None:
    named = next((keyword.value for keyword in node.keywords if keyword.arg == name), None)
    return named if named is not None else node.args[index] if len(node.args) > index else None


def _names(node: ast.AST | None) -> set[str]:
    """Return the one name that an expression is made of: ``y`` of ``y.reshape(-1).long()``."""
    while node is not None and not isinstance(node, ast.Name):
        if isinstance(node, ast.Call):
            node = node.func.value if isinstance(node.func, ast.Attribute) else None
        elif isinstance(node, (ast.Attribute, ast.Subscript)):
            node = node.value
        else:
            node = None
    return {node.id} if isinstance(node, ast.Name) and node.id not in ("torch", "np", "self") else set()
