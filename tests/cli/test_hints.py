"""Every command that golfcore prints works when it is pasted where it was printed; every state has one next step."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cyclopts import CoercionError, MissingArgumentError
from tiny import recipe

import golfcore
from golfcore.cli import app, main
from golfcore.cli.run import resumable
from golfcore.config import to_toml, to_tree
from golfcore.errors import InputError, MachineError
from golfcore.hints import command
from golfcore.pipeline.start import Start, Wish, commands_after
from golfcore.run_folder import ARTIFACT, CHECKPOINT, CONFIG, LOG, PREVIOUS_CHECKPOINT, QUANTIZED, SCORE, STOPPED
from golfcore.training.checkpoint import load_checkpoint, save_checkpoint
from golfcore.training.next_step import next_step
from golfcore.training.saving import way_back

ROOT = Path(__file__).parent.parent.parent
SRC = ROOT / "src" / "golfcore"
COMMANDS = {name for name in app if not name.startswith("-")}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, text_file: Path) -> Path:
    """A working folder whose names need quotes, with a recipe and a text."""
    folder = tmp_path_factory.mktemp("a place")
    (folder / "my tiny.toml").write_text(to_toml(to_tree(recipe(iterations=3))))
    shutil.copy(text_file, folder / "it's text.jsonl")
    return folder


@pytest.fixture(autouse=True)
def at(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("GOLFCORE_CACHE", str(place / "cache"))


@pytest.fixture(scope="module")
def trained(place: Path) -> Path:
    """A run that ``golfcore train`` made; tests work on copies."""
    with contextlib.chdir(place):
        os.environ["GOLFCORE_CACHE"] = str(place / "cache")
        words = ["train", "my tiny.toml", "--text", "it's text.jsonl", "--runs", "my runs", "--run-id", "trained"]
        assert main(words) == 0
    return place / "my runs" / "trained"


@pytest.fixture
def run_dir(trained: Path) -> Iterator[Path]:
    """A copy of the trained run, as a user names it."""
    path = Path("my runs") / "a copy"
    shutil.copytree(trained, path)
    yield path
    shutil.rmtree(path)


def cut_off(run_dir: Path) -> None:
    """Make the last checkpoint one of a training that had not ended."""
    save_checkpoint(run_dir, load_checkpoint(run_dir / CHECKPOINT) | {"final": False})
    (run_dir / PREVIOUS_CHECKPOINT).unlink()


def begun(run_dir: Path) -> None:
    for name in (CHECKPOINT, PREVIOUS_CHECKPOINT):
        (run_dir / name).unlink(missing_ok=True)


def printed(text: str) -> list[list[str]]:
    """The words of every command in a text; a command ends its line."""
    return [shlex.split(line) for line in re.findall(r"(?:^|: )golfcore ([a-z].*)$", text, flags=re.MULTILINE)]


def told(capsys: pytest.CaptureFixture[str], words: list[str], code: int) -> list[str]:
    """The one command in the error of a command."""
    capsys.readouterr()
    assert main(words) == code
    (found,) = printed(capsys.readouterr().err)
    return found


# --- a whole run, pasted ----------------------------------------------------------------------------------------------


def test_each_stage_prints_the_next(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "my tiny.toml", "--text", "it's text.jsonl", "--runs", "my runs", "--run-id", "pasted"]
    stages = []
    while words:
        stages.append(words[0])
        capsys.readouterr()
        assert main(words) == 0
        found = printed(capsys.readouterr().out)
        words = found[0] if found else []
    assert stages == ["train", "quantize", "pack", "eval"]


def test_a_run_prints_commands_that_keep_what_was_typed(capsys: pytest.CaptureFixture[str]) -> None:
    typed = ["run", "my tiny.toml", "--text", "it's text.jsonl", "--set", "train.iterations=2", "--runs", "my runs"]
    assert main([*typed, "--run-id", "panel", "--set", "train.seed=7"]) == 0
    shown = capsys.readouterr().out
    inspect, again = printed(shown)
    assert inspect == ["inspect", f"my runs/panel/{ARTIFACT}"]
    assert again == [
        "run", "my tiny.toml", "--text", "it's text.jsonl", "--set", "train.iterations=2", "--runs", "my runs",
        "--set", "train.seed=8",
    ]  # fmt: skip
    assert json.loads(shown.splitlines()[-1])["run"] == "panel"
    assert main(inspect) == 0
    assert main(again) == 0


@pytest.mark.parametrize(
    "more", [{"changes": {"train.iterations": 2}}, {"environment": {"MATRIX_LR": "0.01"}}, {"resume": Path("runs/a")}]
)
def test_what_no_words_say_is_repeated_by_the_runs_own_config(more: dict[str, Any]) -> None:
    assert Wish("pocket", **more).words(Path("runs/a")) == ["run", Path("runs/a") / CONFIG]
    assert Wish(golfcore.load_recipe("pocket")).words(Path("b/a")) == [
        "run",
        Path("b/a/config.toml"),
        "--runs",
        Path("b"),
    ]


def test_the_default_text_is_followed_by_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    start = Start(Path("runs/a"), recipe(), again=("run", "pocket"))
    words = shlex.split(commands_after(start)[-1])[1:]
    assert words == ["run", "pocket", "--text", "YOUR_TEXT.jsonl"]
    app.parse_args(words, exit_on_error=False)


# --- every state of a run's folder ------------------------------------------------------------------------------------


def test_no_run_at_all(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "log.txt").touch()  # a folder of something else
    for words in (
        ["quantize", "nowhere"], ["pack", "nowhere", "--from", "run"], ["run", "--resume", "nowhere"],
        ["report", "nowhere"], ["quantize", str(tmp_path)],
    ):  # fmt: skip
        app.parse_args(told(capsys, words, 1), exit_on_error=False)


def test_a_run_that_has_nothing_to_go_on_from(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begun(run_dir)
    for words, code in (
        (["run", "--resume", str(run_dir)], 1), (["train", "--resume", str(run_dir)], 1),
        (["quantize", str(run_dir)], 1), (["pack", str(run_dir)], 1),
        (["train", "my tiny.toml", "--runs", "my runs", "--run-id", "a copy"], 2),
    ):  # fmt: skip
        assert told(capsys, words, code) == ["run", f"{run_dir}/{CONFIG}", "--runs", "my runs"]
    before = set(Path("my runs").iterdir())
    assert main(["run", f"{run_dir}/{CONFIG}", "--runs", "my runs"]) == 0
    (made,) = set(Path("my runs").iterdir()) - before
    assert next_step(made).state == "scored"


def test_a_run_that_was_cut_off(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut_off(run_dir)
    words = ["train", "my tiny.toml", "--runs", "my runs", "--run-id", "a copy"]
    assert told(capsys, words, 2) == ["run", "--resume", str(run_dir)]
    assert told(capsys, ["pack", str(run_dir)], 1) == ["run", "--resume", str(run_dir)]
    (run_dir / STOPPED).write_text("{}")
    assert next_step(run_dir).state == "stopped"
    with pytest.raises(KeyboardInterrupt) as caught, resumable(run_dir):
        raise KeyboardInterrupt
    (words,) = printed(str(caught.value))
    assert main(words) == 0
    assert next_step(run_dir).state == "scored"


def test_a_run_whose_training_has_ended(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, ["train", "--resume", str(run_dir)], 1) == ["quantize", str(run_dir)]
    quantize = told(capsys, ["pack", str(run_dir)], 1)
    assert quantize == ["quantize", str(run_dir)]
    assert main(quantize) == 0
    pack = told(capsys, ["train", "my tiny.toml", "--runs", "my runs", "--run-id", "a copy"], 2)
    assert pack == ["pack", str(run_dir)]
    content = (run_dir / QUANTIZED).read_bytes()
    (run_dir / QUANTIZED).write_bytes(content[:1000])
    assert told(capsys, pack, 1) == quantize
    (run_dir / QUANTIZED).write_bytes(content)
    assert main(pack) == 0
    score = told(capsys, ["train", "my tiny.toml", "--runs", "my runs", "--run-id", "a copy"], 2)
    assert score[:3] == ["eval", str(run_dir / ARTIFACT), "--data"]
    assert main(score) == 0
    assert main(["run", "--resume", str(run_dir)]) == 0
    report = told(capsys, ["train", "my tiny.toml", "--runs", "my runs", "--run-id", "a copy"], 2)
    assert report == ["report", str(run_dir)]
    assert main(report) == 0
    (run_dir / SCORE).write_text('{"artifact_sha256": "of another file"}')
    assert next_step(run_dir).state == "packed"


HOLD = """
import sys, time
from pathlib import Path
from golfcore.run_folder import owned
with owned(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_run_that_another_process_writes_to(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(run_dir)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        for words, code in (
            (["quantize", str(run_dir)], 1), (["run", "--resume", str(run_dir)], 1),
            (["train", "my tiny.toml", "--runs", "my runs", "--run-id", "a copy"], 2),
        ):  # fmt: skip
            assert told(capsys, words, code) == ["report", str(run_dir)]
        assert main(["report", str(run_dir)]) == 0
    finally:
        process.kill()
        process.communicate()
    assert next_step(run_dir).state == "trained"


def test_damaged_checkpoints_and_names_that_look_like_options(run_dir: Path) -> None:
    (run_dir / PREVIOUS_CHECKPOINT).unlink(missing_ok=True)
    (run_dir / CHECKPOINT).write_bytes((run_dir / CHECKPOINT).read_bytes()[:-5000])
    assert next_step(run_dir).state == "begun"
    assert command("run", "--resume", Path("-a run")) == "golfcore run --resume './-a run'"


def test_a_loss_that_is_not_finite(run_dir: Path) -> None:
    text = way_back(run_dir)
    assert "stays in" in text
    (words,) = printed(text)
    assert Path(words[1]).is_file()
    app.parse_args(words, exit_on_error=False)


@pytest.mark.parametrize(("state", "word"), [(begun, CONFIG), (cut_off, "--resume"), (lambda _: None, "quantize")])
def test_trouble_of_the_machine_says_how_to_go_on(run_dir: Path, state: Callable[[Path], None], word: str) -> None:
    state(run_dir)
    with pytest.raises(MachineError, match="the disk is full; then ") as caught, resumable(run_dir):
        raise MachineError("cannot write log.txt: the disk is full")
    (words,) = printed(str(caught.value))
    assert any(word in part for part in words)
    with pytest.raises(InputError, match=r"^its own$"), resumable(run_dir):
        raise InputError("its own")


def test_a_page_lists_commands_that_work(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from golfcore.report.load import load_run
    from golfcore.report.page import _commands

    def words() -> list[list[str]]:
        return [shlex.split(line)[1:] for line, _ in _commands(load_run(run_dir))]

    assert words() == [["quantize", str(run_dir)], ["report", str(run_dir), "--json"]]
    (run_dir / LOG).write_text("")
    begun(run_dir)
    assert words()[0][:2] == ["run", f"{run_dir}/{CONFIG}"]  # and not --resume
    assert main(words()[1]) == 0


# --- every command in the sources -------------------------------------------------------------------------------------


def strings(tree: ast.AST) -> Iterator[str]:
    """Every string that is no docstring, with ``x`` for what is filled in."""
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and node.body
        and isinstance(node.body[0], ast.Expr)
    }  # fmt: skip
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs | inner:
            yield node.value


def parses(words: list[str]) -> None:
    """Values stand for what is filled in, so that only names of commands and options are held to anything."""
    with contextlib.suppress(MissingArgumentError, CoercionError):
        app.parse_args(words, exit_on_error=False, print_error=False)


def test_commands_in_strings_exist() -> None:
    found = 0
    for path in sorted(SRC.rglob("*.py")):
        for text in strings(ast.parse(path.read_text())):
            for line in re.findall(r"\bgolfcore ((?:[a-z]+ ?)(?:[\w./-]+ ?|--?[\w-]+ ?)*)", text):
                words = line.split()
                if words[0] in COMMANDS:
                    found += 1
                    until = next((i for i, word in enumerate(words) if not re.fullmatch(r"x|--?[\w-]+", word)), 0)
                    parses([words[0], *words[1:until]] if until > 1 else words[:1])
    assert found >= 3


def test_commands_that_are_put_together_parse() -> None:
    found = set()
    more = {"begin_again": ["run", "x.toml"], "data_words": ["--data", "x"], "words": []}
    for path in sorted(SRC.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "command"):
                continue
            words: list[str] = []
            for part in node.args:
                if isinstance(part, ast.Starred):
                    name = part.value.func.id if isinstance(part.value, ast.Call) else ast.unparse(part.value)
                    words += more.get(name, ["run", "x.toml"] if not words else [])
                else:
                    words.append(part.value if isinstance(part, ast.Constant) else "x")
            found.add(words[0])
            parses(words)
    assert found >= {"run", "quantize", "pack", "eval", "inspect", "report"}


def test_packages_and_targets_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    found: list[str] = []
    for path in sorted(SRC.rglob("*.py")):
        for text in strings(ast.parse(path.read_text())):
            for names in re.findall(r"pip install '?golfcore\[([\w,]+)\]", text):
                found += names.split(",")
                assert set(names.split(",")) <= extras.keys(), f"{path}: {names}"
            for target in re.findall(r"`make ([\w-]+)`", text):
                assert target in targets, f"{path}: {target}"
    assert found
