"""Docstrings follow the rules in CONTRIBUTING.md, as far as a program can check them without false alarms."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parent.parent / "src" / "golfcore"
MODULES = sorted(SRC.rglob("*.py"))

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
RIDDLES = {"what", "how", "whether", "when", "where", "which", "who", "why", "as", "of"}
NO_VERBS = RIDDLES | {"a", "all", "an", "any", "at", "both", "by", "each", "every", "for", "from", "in", "inside", "no",
                      "none", "on", "one", "the", "these", "this", "to", "with", "without"}  # fmt: skip
# Verbs in the imperative that end in s; another first word in s is a third person: "Returns".
IMPERATIVES_IN_S = {"access", "address", "compress", "cross", "decompress", "express", "focus", "pass", "process"}


def documented(path: Path) -> Iterator[tuple[str, Documented, str]]:
    """Yield name, node and docstring of a module and of everything public in it, methods too."""

    def walk(node: Documented, name: str) -> Iterator[tuple[str, Documented, str]]:
        text = ast.get_docstring(node)
        if text is not None:
            yield name, node, text
        for child in node.body:
            if not isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            if not child.name.startswith("_") or child.name == "__init__":
                yield from walk(child, f"{name}.{child.name}")

    yield from walk(ast.parse(path.read_text()), str(path.relative_to(SRC)))


def is_property(node: Documented) -> bool:
    if isinstance(node, (ast.Module, ast.ClassDef)):
        return False
    names = {ast.unparse(decorator).split(".")[-1] for decorator in node.decorator_list}
    return bool(names & {"property", "cached_property"})


def is_function(node: Documented) -> bool:
    return isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not is_property(node)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SRC)))
def test_first_lines_are_sentences(path: Path) -> None:
    """A first line is whole, ends with a full stop or a colon, and does not begin with a question word."""
    for name, node, text in documented(path):
        first, _, rest = text.partition("\n")
        assert not rest.partition("\n")[0].strip(), f"{name}: the first sentence is longer than a line: {first!r}"
        assert first.rstrip().endswith((".", ":")), f"{name}: {first!r} ends without a full stop"
        word = first.split()[0].lower()
        if not is_property(node):
            assert word not in RIDDLES, f"{name}: {first!r} says how it relates to something, not what it is"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SRC)))
def test_functions_begin_with_a_verb(path: Path) -> None:
    """A function's first word is a verb in the imperative: neither an article, a symbol nor a third person."""
    for name, node, text in documented(path):
        if is_function(node):
            word = text.split()[0]
            assert re.fullmatch(r"[A-Z][a-z-]+,?", word), f"{name}: begins with {word!r}, not with a verb"
            verb = word.rstrip(",").lower()
            assert verb not in NO_VERBS, f"{name}: begins with {word!r}, not with a verb"
            assert not verb.endswith("s") or verb in IMPERATIVES_IN_S, f"{name}: {word!r}; say Return, Load, Raise"


def test_every_module_says_what_it_is() -> None:
    silent = [str(path.relative_to(SRC)) for path in MODULES if not ast.get_docstring(ast.parse(path.read_text()))]
    assert silent == []


def test_a_riddle_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind of first line that the rules forbid is noticed."""
    monkeypatch.setitem(globals(), "SRC", tmp_path)
    path = tmp_path / "module.py"
    for line in ("Returns the sum.", "The sum.", "What a sum is.", "``a + b``.", "No full stop"):
        path.write_text(f'"""A module."""\n\n\ndef add():\n    """{line}"""\n')
        with pytest.raises(AssertionError):
            test_first_lines_are_sentences(path)
            test_functions_begin_with_a_verb(path)
    path.write_text('"""A module."""\n\n\ndef add():\n    """Return the sum."""\n')
    test_first_lines_are_sentences(path)
    test_functions_begin_with_a_verb(path)
