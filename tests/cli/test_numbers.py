"""Every number of the command line has a declared range, and one outside it ends with one line at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from cyclopts import App, Argument

from golfcore.cli import app, main
from golfcore.cli.options import range_of

HUGE = "1" + "0" * 30
BAD = ("-1", "-5", "nan", "inf", "-inf", HUGE, f"-{HUGE}", "1e400", "0x" + "f" * 5000, "1" * 5000, "abc", "")


def commands(group: App, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], App]]:
    for name in group:
        if name.startswith("-"):
            continue
        command = group[name]
        if command.default_command is not None:
            yield (*words, name), command
        yield from commands(command, (*words, name))


def parts(kind: Any) -> set[Any]:
    return {kind}.union(*map(parts, () if get_origin(kind) is Literal else get_args(kind)))


ALL = [
    pytest.param(words, command, argument, id=" ".join((*words, argument.name)))
    for words, command in commands(app)
    for argument in command.assemble_argument_collection()
]
NUMBERS = [case for case in ALL if {int, float} & parts(case.values[2].hint)]
PATHS = [case for case in ALL if Path in parts(case.values[2].hint)]


def words_of(words: tuple[str, ...], command: App, argument: Argument, value: str) -> list[str]:
    """A call of a command with one option, and something for each argument that it cannot do without."""
    needed = [a for a in command.assemble_argument_collection() if a.required and a.name != argument.name]
    call = [*words]
    for other in needed:
        text = "300" if int in parts(other.hint) else "nowhere"
        call += [f"{other.name}={text}"] if other.name.startswith("-") and _keyword(other) else []
    option = [f"{argument.name}={value}"] if _keyword(argument) else [value]
    positional = ["nowhere" for a in needed if not _keyword(a)]
    return [*call, *(positional + option if _keyword(argument) else option + positional)]


def _keyword(argument: Argument) -> bool:
    return argument.field_info.kind is argument.field_info.KEYWORD_ONLY


def refused(call: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which a call is refused."""
    began = time.monotonic()
    assert main(call) == 2, call
    assert time.monotonic() - began < 60  # not a measurement: a loop without an end would be one
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("golfcore: ") and not printed.out, printed
    assert len(lines[0]) < 400
    return lines[0]


def test_there_are_numbers_in_many_commands() -> None:
    assert len({case.values[0] for case in NUMBERS}) >= 10
    assert len(NUMBERS) >= 30


@pytest.mark.parametrize(("words", "command", "argument"), NUMBERS)
def test_each_number_declares_its_range(words: tuple[str, ...], command: App, argument: Argument) -> None:
    allowed = range_of(argument)
    assert allowed is not None, "give it Parameter(validator=...) with a Range of golfcore.ranges"
    assert allowed.whole == (float not in parts(argument.hint))
    for default in [argument.field_info.default]:
        if isinstance(default, (int, float)):
            assert default in allowed


@pytest.mark.parametrize(("words", "command", "argument"), NUMBERS)
def test_a_number_out_of_range_is_one_line(
    words: tuple[str, ...], command: App, argument: Argument, capsys: pytest.CaptureFixture[str]
) -> None:
    allowed = range_of(argument)
    assert allowed is not None
    bad = [*BAD, *(["0"] if 0 not in allowed else []), *(["1.5"] if allowed.whole else [])]
    for value in bad:
        line = refused(words_of(words, command, argument, value), capsys)
        assert argument.name in line and f"expected {allowed}" in line, line
        assert value[:20] in line


def test_whole_numbers_may_be_written_with_an_exponent() -> None:
    _, bound, _ = app.parse_args(["eval", "m.golf", "--context", "1e3", "--batch-tokens", "64.0"])
    assert (bound.arguments["context"], bound.arguments["batch_tokens"]) == (1000, 64)


@pytest.mark.parametrize(("words", "command", "argument"), PATHS)
def test_an_empty_path_is_refused(
    words: tuple[str, ...], command: App, argument: Argument, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "the path is empty" in refused(words_of(words, command, argument, ""), capsys)


def test_paths_are_taken_as_they_stand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    call = ["run", "--data=1.10", "--runs=~/r", "--resume", "007", "--text", "[draft].txt", "--text", '{"a": 1}']
    _, bound, _ = app.parse_args(call)
    found = bound.arguments
    assert (found["data"], found["runs"], found["resume"]) == (Path("1.10"), tmp_path / "r", Path("007"))
    assert list(found["text"]) == [Path("[draft].txt"), Path('{"a": 1}')]


def test_a_home_that_nobody_knows_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(Path, "expanduser", lambda self: (_ for _ in ()).throw(RuntimeError("no home")))
    assert "--runs ~/r: the home folder is not known; set HOME" in refused(["run", "--runs=~/r"], capsys)
    _, bound, _ = app.parse_args(["run", "--text", "~old.txt"])
    assert list(bound.arguments["text"]) == [Path("~old.txt")]
