"""Collect the source code that a packed model carries, without docstrings and comments.

A contest counts the code of an entry against its cap, so words that no interpreter reads are left out.
"""

from __future__ import annotations

import ast
import io
import tokenize
from importlib.resources import files

from golfcore.container.codec_base import Coder
from golfcore.model import Family

# What turns the bytes back into weights: a decoder that needs nothing else. The model's own files come from its family.
READER_SOURCES = ("artifact/model_io.py", "artifact/weights.py", "container/plain_decoder.py", "container/trellis.py")
SMALLEST_SOURCES = ("container/plain_binary.py",)  # if coder is "smallest"
MIX_SOURCES = ("ops/reference/ngram.py",)  # if eval.adapt is "mix"


def code_bundle(family: Family, coder: Coder = "fast", adapt: str = "none") -> bytes:
    """Return the source files that the score depends on, each behind a line with its name.

    The bytes are the same on any machine and with any version of Python.

    Args:
        family: the model's family.
        coder: the coder of the symbols.
        adapt: the evaluation's ``eval.adapt``.
    """
    package = files("golfcore")
    parts = []
    names = {*family.sources, *READER_SOURCES}
    names |= {*(SMALLEST_SOURCES if coder == "smallest" else ()), *(MIX_SOURCES if adapt == "mix" else ())}
    for name in sorted(names):
        text = without_words(package.joinpath(name).read_text(encoding="utf-8"))
        parts.append(f"# --- {name}\n{text}")
    return "".join(parts).encode()


def without_words(source: str) -> str:
    """Return Python source without docstrings, comments and blank lines; every other character stays as it is."""
    lines = source.splitlines(keepends=True)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column].rstrip() + "\n"
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        for number, statement in enumerate(node.body):
            if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Constant):
                continue
            if isinstance(statement.value.value, str):
                first, last = statement.lineno - 1, statement.end_lineno or statement.lineno
                alone = number == 0 and len(node.body) == 1 and not isinstance(node, ast.Module)
                indent = lines[first][: statement.col_offset]
                lines[first:last] = [f"{indent}...\n" if alone else "\n", *["\n"] * (last - first - 1)]
    # A blank line inside a string belongs to it. There is none in what is packed; if one came, it would have to stay.
    strings = _lines_inside_strings("".join(lines))
    return "".join(line for number, line in enumerate(lines, 1) if line.strip() or number in strings)


def _lines_inside_strings(source: str) -> set[int]:
    found: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Constant, ast.JoinedStr)) and node.end_lineno and node.end_lineno > node.lineno:
            found.update(range(node.lineno + 1, node.end_lineno + 1))
    return found
