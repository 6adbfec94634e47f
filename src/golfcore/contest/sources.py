"""Parse the programs of an entry, with packed code expanded, and settings of the environment that it shows."""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import dataclass, field

from golfcore.contest.findings import Finding
from golfcore.contest.flow.state import SourceFile
from golfcore.contest.folder import PYTHON, SCRIPT, SHELL, Entry, EntryFile
from golfcore.contest.log_facts import LogFacts
from golfcore.contest.ruleset import Severity
from golfcore.contest.unpack import Unpacked, unpack

MAX_NESTED = 180  # brackets within brackets that a file may have
MAX_UNARY = 400  # operators in a row
_REVIEW: Severity = "REVIEW"
_FORMAT: Severity = "FORMAT"
_VARIABLE = re.compile(r"(?<![\w.$-])([A-Z][A-Z0-9_]{2,60})=([\"']?)([^\s\"'`;&|\\]{0,200})\2(?=[\s\\;`&|]|$)")
_ROWS = re.compile(rf"[-+~!]{{{MAX_UNARY}}}|(?:not\s{{1,4}}){{{MAX_UNARY}}}|(?:lambda\s{{0,3}}:\s{{0,3}}){{60}}")


@dataclass
class Programs:
    """The Python files of an entry that could be parsed; ``expanded`` has the bytes of each after unpacking."""

    files: dict[str, SourceFile] = field(default_factory=dict)
    expanded: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)


def read_programs(entry: Entry, logs: list[LogFacts]) -> Programs:
    """Parse every Python file; what cannot be parsed becomes a finding."""
    result = Programs(settings=settings_of(entry, logs))
    for file in entry.with_suffix(PYTHON):
        _read(result, file)
    return result


def _read(result: Programs, file: EntryFile) -> None:
    text = file.text or ""
    tree = _parse(result, file.name, text, packed=False)
    if tree is None:
        return
    source = SourceFile(file.name, text, tree)
    result.expanded[file.name] = file.size
    unpacked = unpack(tree)
    if unpacked.problem:
        result.not_checked.append(f"{file.name}: {unpacked.problem}")
        what = f"{file.name} executes code that cannot be read: {unpacked.problem}."
        fix = "Pack it so that literals and decoders of the standard library are enough to read it."
        result.findings.append(Finding("R3", _REVIEW, what, fix, "static", 0.9, file.name, 1))
    if unpacked.text is not None:
        _expanded(result, file, source, unpacked)
        return
    result.files[file.name] = source


def _expanded(result: Programs, file: EntryFile, source: SourceFile, unpacked: Unpacked) -> None:
    """Take the code that a shim executes in the place of the shim."""
    text = unpacked.text or ""
    inner = _parse(result, file.name, text, packed=True)
    result.expanded[file.name] = len(text.encode())
    result.findings.append(
        Finding(
            "package",
            "INFO",
            f"{file.name} is packed {unpacked.layers} deep ({', '.join(unpacked.codecs)}); lines are "
            f"those of the {len(text.encode()):,} bytes that it expands to.",
            "Nothing to do.",
            "static",
            1.0,
            file.name,
            1,
        )
    )
    result.files[file.name] = SourceFile(file.name, text, inner) if inner is not None else source


def _parse(result: Programs, name: str, text: str, *, packed: bool) -> ast.Module | None:
    what = "the code packed in it" if packed else "it"
    problem = ""
    line = 0
    if _nested(text) > MAX_NESTED or _ROWS.search(text):
        problem = "nests too deeply to be read"
    else:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return ast.parse(text)
        except SyntaxError as error:
            problem, line = f"is not Python: {error.msg}", error.lineno or 0
        except (ValueError, RecursionError, MemoryError) as error:
            problem = f"cannot be parsed: {type(error).__name__}"
    main = name == SCRIPT
    lines = tuple(text.split("\n")[line - 1 : line]) if line else ()
    text = f"{name}: {what} {problem}."
    fix = "Ship source that Python 3 compiles."
    rule, severity = ("R3", _REVIEW) if main else ("package", _FORMAT)
    result.findings.append(Finding(rule, severity, text, fix, "static", 1.0, name, line, lines))
    result.not_checked.append(f"{name}: {what} {problem}, so its data flow was not followed")
    return None


def _nested(text: str) -> int:
    """Return how deep brackets nest; strings are not told apart, which can only make the answer larger."""
    depth = deepest = 0
    for mark in re.findall(r"[\[\](){}]", text):
        depth += 1 if mark in "[({" else -1
        deepest = max(deepest, depth)
        depth = max(depth, 0)
    return deepest


def settings_of(entry: Entry, logs: list[LogFacts]) -> dict[str, str]:
    """Return variables of the environment: as scripts and README set them; what the logs print counts more."""
    found: dict[str, str] = {}
    for file in (*entry.with_suffix(SHELL), *entry.with_suffix((".md",))):
        for name, _, value in _VARIABLE.findall((file.text or "")[:400_000]):
            found.setdefault(name, value)
    for log in logs:
        for key, value in log.settings.items():
            if key.islower() and " " not in value and log.setting_lines.get(key, 0) < (log.stop_line or 10**9):
                found[key] = value
                found.pop(key.upper(), None)
    return found
