"""Follow true tokens through helpers in C, C++ and CUDA: by names and assignments, statement by statement."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field

from golfcore.contest.checks.context import Context
from golfcore.contest.findings import Finding
from golfcore.contest.flow.state import split_labels
from golfcore.contest.folder import NATIVE, SHELL
from golfcore.contest.sources import Programs
from golfcore.contest.techniques.judge import FIXES

MAX_STATEMENTS = 20_000
MAX_STATEMENT = 600
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_TARGET = re.compile(r"\b(?:tgt|target|targets|true_tok|next_tok|actual|label|labels|y)\b(?:\[[^\]]{0,80}\])?")
_AHEAD = re.compile(
    r"\b(?:tok|toks|tokens|ids|stream|val)\w{0,20}\[\s{0,3}\(?\s{0,3}\w{1,20}\s{0,3}(?:\+\s{0,3}1)?\s{0,3}\)?\s{0,3}\]"
)
_ASSIGN = re.compile(r"(?:^|[\s(])([A-Za-z_]\w{0,60})\s{0,3}(?:\^|\+|\*|\||&|%|-)?=(?!=)\s{0,3}(.{1,500})$")
_CLASS = re.compile(
    r"\b\w{0,30}(?:word|space|lead|bound|start|class|within)\w{0,30}\[\s{0,3}(\w{1,40})(?:\[[^\]]{0,60}\])?\s{0,3}\]"
)
_BYTES = re.compile(r"\b\w{0,30}(?:byte|piece|str|off|chars)\w{0,30}\[")
_PROBABILITY = re.compile(r"\b(?:log|logf|log2|log2f|exp|expf|logaddexp)\s{0,2}\(|/")


_RENAMED = re.compile(r"\b(?:ln|cp|mv|rsync)\b[^|;&]{0,300}_val_[^|;&]{0,300}[\s/][\w./${}-]{0,120}_train_")
_SEEDS = re.compile(r"for\s+\w{1,20}\s+in\s+[^\n]{1,200}(?:seq|\d+\s+\d+\s+\d+\s+\d+\s+\d+)[^\n]{0,200}", re.IGNORECASE)
_PICKED = re.compile(r"SEED=[\"']?\$\{?\w+[\s\S]{0,4000}?\|\s*sort\b[^\n]{0,80}(?:head|tail)", re.IGNORECASE)
_MOVES = ("symlink", "link", "copy", "copyfile", "copy2", "move", "rename", "replace")


@dataclass
class _Names:
    """What the names of a file stand for."""

    targets: set[str] = field(default_factory=set)
    hashes: set[str] = field(default_factory=set)
    bytes: set[str] = field(default_factory=set)
    counts: set[str] = field(default_factory=set)  # read at a key with the true token in it
    byte_counts: set[str] = field(default_factory=set)
    classes: set[str] = field(default_factory=set)


def check_native(context: Context, programs: Programs) -> None:
    """Check helpers in other languages, and such code in the strings of Python files."""
    files = context.entry.with_suffix(NATIVE)
    for file in files:
        _report(context, file.name, file.text or "", 0)
    for source in programs.files.values():
        for start, text in _strings(source.text):
            _report(context, source.name, text, start)
    if files:
        context.notes.skip("helpers in C, C++ and CUDA: followed by names and assignments only")


def check_shell(context: Context, programs: Programs) -> None:
    """Check scripts and commands for validation shards under the name of training, and for the best of many seeds."""
    for file in context.entry.with_suffix((*SHELL, ".md")):
        lines = (file.text or "").replace("\\\n", "  ").split("\n")
        for number, line in enumerate(lines, 1):
            if _RENAMED.search(line[:2_000]):
                _shown(
                    context,
                    "I12",
                    "Validation shards are put in the place of training shards.",
                    file.name,
                    number,
                    line,
                )
        text = (file.text or "")[:200_000]
        loop = _SEEDS.search(text)
        if file.suffix in SHELL and loop and _PICKED.search(text):
            number = text.count("\n", 0, loop.start()) + 1
            _shown(context, "I18", "Seeds are run in a loop, and their scores are sorted.", file.name, number, loop[0])
    for source in programs.files.values():
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call) and len(node.args) == 2 and _name(node.func) in _MOVES:
                old, new = (split_labels(ast.unparse(argument)[:500]) for argument in node.args)
                if old == {"VAL"} and new == {"TRAIN"}:
                    text = "Validation shards are put in the place of training shards."
                    _shown(context, "I12", text, source.name, node.lineno, ast.unparse(node))


def _name(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _shown(context: Context, rule: str, reason: str, name: str, line: int, text: str) -> None:
    context.notes.add(Finding(rule, "LIKELY", reason, FIXES[rule], "static", 0.8, name, line, (text.strip(),)))


def _strings(text: str) -> list[tuple[int, str]]:
    """Return C code within long strings of a Python file, and the lines before it."""
    parts = re.finditer(r"(\"\"\"|''')(.{200,200000}?)\1", text, re.DOTALL)
    code = [part for part in parts if re.search(r"#include|__global__|extern \"C\"|\bvoid \w+\s*\(", part[2])]
    return [(text.count("\n", 0, part.start(2)), part[2]) for part in code[:20]]


def suspects(text: str) -> list[tuple[str, int, str]]:
    """Return rule, line and reason for what C code does with true tokens."""
    statements = _statements(text)
    names = _Names()
    for _ in range(3):
        for _, statement in statements:
            _learn(names, statement)
    found: dict[str, tuple[str, int, str]] = {}
    for line, statement in statements:
        if names.byte_counts & set(re.findall(r"\w+", statement)) and _PROBABILITY.search(statement):
            found.setdefault(
                "I7", ("I7", line, "Counts are read along the bytes of the true token and become its probability.")
            )
        elif names.counts & set(re.findall(r"\w+", statement)) and _PROBABILITY.search(statement):
            found.setdefault(
                "I5", ("I5", line, "A table is read at a hash of context and true token and becomes its probability.")
            )
        condition = re.match(r"\s*(?:if|while)\s*\((.{1,500})", statement)
        tested = condition[1] if condition else statement.partition("?")[0] if "?" in statement else ""
        if tested and (_class_of_target(names, tested) or names.classes & set(re.findall(r"\w+", tested))):
            found.setdefault("I6", ("I6", line, "A property of the true token decides whether a hint counts."))
    if "I7" in found:
        found.pop("I5", None)
    return list(found.values())


def _statements(text: str) -> list[tuple[int, str]]:
    bare = _COMMENT.sub(lambda m: "\n" * m[0].count("\n"), text)
    result: list[tuple[int, str]] = []
    line = 1
    for part in re.split(r"([;{}])", bare):
        stripped = part.strip()
        if len(stripped) > 1:
            first = line + part[: len(part) - len(part.lstrip())].count("\n")
            result.append((first, " ".join(stripped.split())[:MAX_STATEMENT]))
        line += part.count("\n")
        if len(result) >= MAX_STATEMENTS:
            break
    return result


def _learn(names: _Names, statement: str) -> None:
    """Learn from an assignment what a name stands for."""
    statement = re.sub(r"^for\s*\(", "", statement)
    match = _ASSIGN.search(statement)
    if match is None:
        return
    name, value = match[1], match[2]
    words = set(re.findall(r"[A-Za-z_]\w*", value))
    target = (
        bool(_TARGET.search(value))
        or bool(words & names.targets)
        or (bool(_TARGET.fullmatch(name)) and bool(_AHEAD.search(value)))
    )
    hashed = re.search(r"[\^%&]|hash", value) is not None
    index = re.findall(r"\[([^\[\]]{1,200})\]", value)
    keys = {word for part in index for word in re.findall(r"[A-Za-z_]\w*", part)}
    if keys & names.hashes:
        names.counts.add(name)
    elif keys & names.bytes and not _BYTES.search(value):
        names.byte_counts.add(name)
    elif words & names.counts:
        names.counts.add(name)
    elif words & names.byte_counts:
        names.byte_counts.add(name)
    elif target and hashed and not index:
        names.hashes.add(name)
    elif target and _class_of_target(names, value):
        names.classes.add(name)
    elif (target and _BYTES.search(value)) or words & names.bytes:
        names.bytes.add(name)
    elif (target and re.fullmatch(r"\(?[\w\s*()]*(?:\[[^\]]*\])?\)?", value)) or (
        _TARGET.fullmatch(name) and _AHEAD.search(value)
    ):
        names.targets.add(name)


def _class_of_target(names: _Names, text: str) -> bool:
    return any(word in names.targets or _TARGET.fullmatch(word) for word in _CLASS.findall(text))


def _report(context: Context, name: str, text: str, before: int) -> None:
    every = text.split("\n")
    for rule, line, reason in suspects(text):
        shown = tuple(part.strip() for part in every[line - 1 : line])
        context.notes.add(Finding(rule, "LIKELY", reason, FIXES[rule], "static", 0.7, name, before + line, shown))
