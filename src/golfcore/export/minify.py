"""Shorten a module's syntax tree: drop docstrings, annotations, and checks of what golfcore has checked before."""

from __future__ import annotations

import ast
import io
import tokenize

# Errors that tell a user of wrong input. RuleError stays: it guards the score.
CHECKED = {"InputError", "UsageError", "FormatError"}
MESSAGE = 30  # characters of an error's message that stay
# Functions and methods whose calls alone on a line tell of progress, or check what golfcore has checked.
TOLD = {"tick", "_tick", "check", "require", "check_finite", "check_roles"}
# Keywords that only make a mistake an error.
UNCHECKED = {"zip": {"strict"}, "dataclass": {"slots"}}
# Methods that do nothing but check a config, which was valid when it was exported.
CHECKS = {"__post_init__"}


def minified(source: str) -> ast.Module:
    """Return the syntax tree of a module without docstrings, annotations and checks of input.

    The fields of classes keep an annotation, since dataclasses and named tuples read it; it becomes ``int``.
    """
    tree = _Short().visit(ast.parse(source))
    assert isinstance(tree, ast.Module)
    return tree


def unparsed(tree: ast.Module) -> str:
    """Return the source of a tree in few characters: one space of indent, none where none is needed.

    Raises:
        ValueError: the source would not give the tree back.
    """
    text = ast.unparse(ast.fix_missing_locations(tree))
    lines: list[str] = []
    line, depth, before = "", 0, ""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.INDENT, tokenize.DEDENT):
            depth += 1 if token.type == tokenize.INDENT else -1
        elif token.type in (tokenize.NEWLINE, tokenize.NL):
            if line:
                lines.append(line)
            line = before = ""
        elif token.string:
            if not line:
                line = " " * depth
            apart = before and _is_word(before[-1]) and (_is_word(token.string[0]) or token.string[0] in "'\"")
            line += " " + token.string if apart else token.string
            before = token.string
    short = "\n".join(lines) + "\n"
    if ast.dump(ast.parse(short)) != ast.dump(ast.parse(text)):
        raise ValueError("the shortened source is another program")
    return short


def _is_word(letter: str) -> bool:
    return letter.isalnum() or letter == "_"


class _Short(ast.NodeTransformer):
    """Shortens every node; a body that becomes empty gets ``pass``."""

    def __init__(self) -> None:
        self._in_class = False

    def generic_visit(self, node: ast.AST) -> ast.AST:
        node = super().generic_visit(node)
        if getattr(node, "body", None) == []:
            node.body = [ast.Pass()]  # type: ignore[attr-defined]
        return node

    def visit_Module(self, node: ast.Module) -> ast.AST:
        node.body = [s for s in self._body(node.body) if not _is_future(s)]
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.decorator_list = [self.visit(d) for d in node.decorator_list]
        outer, self._in_class = self._in_class, True
        kept = [s for s in node.body if not (isinstance(s, ast.FunctionDef) and s.name in CHECKS)]
        node.body = self._body(kept) or [ast.Pass()]
        self._in_class = outer
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
        for argument in every:
            if argument is not None:
                argument.annotation = None
        outer, self._in_class = self._in_class, False
        node.body = self._body(node.body) or [ast.Pass()]
        self._in_class = outer
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        if self._in_class:
            node.annotation = ast.Name("int", ast.Load())
            return node
        if node.value is None:
            return None
        return ast.copy_location(ast.Assign([node.target], self.visit(node.value)), node)

    def visit_If(self, node: ast.If) -> ast.AST | None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return None
        if _is_check(node):
            return None
        node.body = self._body(node.body) or [ast.Pass()]
        node.orelse = self._body(node.orelse)
        node.test = self.visit(node.test)
        return node

    def visit_Assert(self, node: ast.Assert) -> None:
        return None

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        call = node.value
        if isinstance(call, ast.Call):
            name = getattr(call.func, "id", None) or getattr(call.func, "attr", None)
            if name in TOLD:
                return None
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Name) and node.func.id in UNCHECKED:
            node.keywords = [word for word in node.keywords if word.arg not in UNCHECKED[node.func.id]]
        return self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        """Keep the beginning of a message: the reader of a script has golfcore's source for the rest."""
        call = node.exc
        if isinstance(call, ast.Call) and call.args and isinstance(call.args[0], (ast.JoinedStr, ast.Constant)):
            texts = [
                n.value for n in ast.walk(call.args[0]) if isinstance(n, ast.Constant) and isinstance(n.value, str)
            ]
            call.args = [ast.Constant(max(texts, key=len, default="").strip()[:MESSAGE])]
        node.cause = None
        return node

    def _body(self, statements: list[ast.stmt]) -> list[ast.stmt]:
        kept = [s for s in statements if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
        visited = [self.visit(s) for s in kept]
        return [s for s in visited if s is not None]


def _is_future(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.ImportFrom) and statement.module == "__future__"


def _is_check(node: ast.If) -> bool:
    """Say whether a statement does nothing but raise an error about input."""
    if node.orelse or len(node.body) != 1 or any(isinstance(n, ast.NamedExpr) for n in ast.walk(node.test)):
        return False
    (only,) = node.body
    call = only.exc if isinstance(only, ast.Raise) else None
    return isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in CHECKED
