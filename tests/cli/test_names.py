"""Whatever a name holds, it is shown as it is: never markup, an emoji, a control code, HTML or a shell's syntax."""

from __future__ import annotations

import ast
import dataclasses
import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import BYTES, NAMES, plain
from tiny import TINY, VOCAB, recipe

from golfcore.artifact.model_io import save_model
from golfcore.cli import data, doctor, kernels, main, output, run, stages, sweep
from golfcore.config import to_toml, to_tree
from golfcore.container import Tensor, write
from golfcore.model import get_family
from golfcore.pipeline.whole import RunResult
from golfcore.printing import printable
from golfcore.sweep.queue import Entry
from golfcore.sweep.spec import Job
from golfcore.training.runlog import RunLog

SRC = Path(output.__file__).parents[1]
STEERING = {chr(code) for code in (*range(0x20), *range(0x7F, 0xA0), 0x202E)} - set("\n\t")


@pytest.fixture(params=["pipe", "terminal"])
def shown(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """What commands print, to a pipe and to a wide terminal without colors."""
    written = io.StringIO()
    for name in ("out", "err"):
        console = output.PlainConsole(
            file=written, width=4000, force_terminal=request.param == "terminal", no_color=True, soft_wrap=True
        )
        monkeypatch.setattr(output, name, console)
        for module in (data, kernels, run, stages, sweep):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, console)
    return written.getvalue


def without_styles(text: str) -> str:
    """The text without rich's own codes: bold, dim, and the cursor of a progress bar."""
    return re.sub(r"\x1b\[[?\d;]*[a-zA-Z]|\r", "", text)


def score(name: str) -> dict[str, Any]:
    return {
        "artifact": name, "val_bpb": 1.0, "val_loss": 1.0, "tokens": 5, "bytes": 5, "context": 8, "stride": 8,
        "artifact_bytes": 9, "artifact_sha256": "0" * 64, "code_matches": False, "future_flip_nats": 0.0,
        "eval_s": 1.0, "pace": None, "adapt": "none",
    }  # fmt: skip


def result(name: str) -> RunResult:
    packed = {"bytes": {"file": 9, "cap": 10, "free": 1}, "roles": []}
    config = dataclasses.replace(recipe(), name=name)
    ledger = [{"phase": "train", "seconds": 1.0, "budget_s": None}]
    return RunResult(Path("runs") / plain(name), config, score(name), packed, ledger, 1.0, 1.0, Path("r.html"))


def entry(name: str) -> Entry:
    found = {"val_bpb": 1.0, "artifact_bytes": 9}
    return Entry(1, Job(name, name, (name,), 1), "done", None, None, 1, None, found, name, 0.0, 1.0)


RENDERERS: dict[str, Callable[[str], object]] = {
    "closing panel": lambda name: output.out.print(run.closing_panel(result(name))),
    "score": lambda name: output.out.print(stages._score_table(score(name))),
    "line": lambda name: output.out.print(f"{name}: done"),
    "styled": lambda name: output.out.print(output.styled((name, "bold"), " and ", name)),
    "table": lambda name: output.print_table(table(name)),
    "doctor": lambda name: output.out.print(doctor.described(doctor.Row(name, doctor.OK, name, name))),
    "sweep": lambda name: output.print_table(sweep._table(Path(plain(name)), [entry(name)])),
    "progress": lambda name: progress(name),
}


def table(name: str) -> Any:
    made = output.plain_table(name, "other", right=(name,))
    made.add_row(name, name)
    made.title = name
    return made


def progress(name: str) -> None:
    with output.progress(name) as tick:
        tick(1, 2, name)


@pytest.mark.parametrize("name", NAMES, ids=ascii)
@pytest.mark.parametrize("renderer", RENDERERS)
def test_a_name_is_shown_as_it_is(renderer: str, name: str, shown: Callable[[], str]) -> None:
    RENDERERS[renderer](name)
    text = without_styles(shown())
    if renderer == "closing panel":
        name = plain(name)
    assert not STEERING & set(text), ascii(text)
    forms = ([printable(name)], printable(name, keep="\n\t").split("\n"))  # on one line, or on as many as it has
    assert any(all(words(line) in words(text) for line in form) for form in forms), ascii(text)


def words(text: str) -> str:
    """The text with one space where a table or a tab makes many."""
    return " ".join(text.split())


def test_json_is_one_line_of_any_name(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NAMES, *BYTES):
        for encoding in ("utf-8", "latin-1", "ascii"):
            raw = io.BytesIO()
            monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding, errors="strict"))
            output.print_json({"path": name})
            lines = raw.getvalue().splitlines()
            assert len(lines) == 1 and json.loads(lines[0]) == {"path": name}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.golf"
    save_model(path, get_family("gpt"), TINY, VOCAB, [], b"", {"recipe": "x [/2]", "note": "\x1b[31m"})
    return path


@pytest.mark.parametrize("name", [*map(plain, NAMES), *BYTES], ids=ascii)
def test_commands_on_files_of_any_name(
    tmp_path: Path, model: Path, name: str, capsys: pytest.CaptureFixture[str], text_file: Path
) -> None:
    """The quick commands, each on files in a folder of that name, with and without --json."""
    folder = tmp_path / name
    folder.mkdir()
    file = folder / f"{name}.golf"
    file.write_bytes(model.read_bytes())
    text = folder / f"{name}.jsonl"
    text.write_bytes(text_file.read_bytes())
    toml = folder / f"{name}.toml"
    toml.write_text(to_toml({k: v for k, v in to_tree(recipe()).items() if k != "name"}), encoding="utf-8")
    tokens, tokenizer = folder / "tokens", folder / "t.bpe"
    for call in (
        ["inspect", file], ["inspect", file, "--markdown"], ["verify", file], ["diff", file, model],
        ["unpack", file, "-o", folder / "apart"], ["pack", folder / "apart", "-o", folder / "again.golf"],
        ["tok", "train", text, "-o", tokenizer, "--vocab-size", "260"], ["tok", "audit", text, "-t", tokenizer],
        ["data", "prepare", "--text", text, "-o", tokens, "--tokenizer", tokenizer], ["data", "verify", tokens],
    ):  # fmt: skip
        assert main(list(map(str, call))) == 0, (call, capsys.readouterr())
        printed = capsys.readouterr()
        assert not STEERING & set(printed.out + printed.err), (call, ascii(printed.out + printed.err))
    assert main(["verify", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == str(file)
    code = main(["recipes", "diff", "pocket", str(toml)])
    printed = capsys.readouterr()
    if name in BYTES:
        assert code == 2 and "expected text in UTF-8; rename the file" in printed.err
        assert len(printed.err.splitlines()) == 1
    else:
        assert code == 0, printed.err
        assert main(["plan", str(toml), "--gpus", "1"]) == 0
        assert main(["recipes", "show", str(toml), "--resolved"]) == 0


@pytest.mark.parametrize("name", [*NAMES, *BYTES], ids=ascii)
def test_an_error_about_any_name_is_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for call in (
        ["inspect", f"./{name}.golf"], ["run", name], ["train", "pocket", "--run-id", f"{name}/x"],
        ["verify", f"./{name}"],
        ["eval", "x.golf", "--data", f"./{name}"], ["run", "pocket", "--set", name], ["eval", "x.golf", f"--{name}"],
        ["recipes", "explain", name], ["report", f"./{name}"], ["tok", "encode", f"./{name}", "-t", f"./{name}"],
        ["data", "verify", f"./{name}"], ["run", "pocket", "--resume", f"./{name}"], ["quantize", f"./{name}"],
        ["plan", "pocket", "--data", f"./{name}"], ["run", "pocket", "--set", f"train.seed={name}"],
    ):  # fmt: skip
        assert main(call) in (1, 2), call
        printed = capsys.readouterr().err
        lines = [line for line in printed.split("\n") if line.startswith("golfcore: ")]
        assert len(lines) == 1 and printed.endswith(f"{lines[0]}\n"), (call, printed)
        assert not STEERING & set(printed), ascii(printed)


def test_a_log_has_a_line_for_each_line(tmp_path: Path) -> None:
    said: list[str] = []
    for name in (*NAMES, *BYTES):
        with RunLog(tmp_path / "run", primary=True, echo=said.append) as log:
            log.line(f"override: data.path={name}")
    lines = (tmp_path / "run" / "log.txt").read_text(encoding="utf-8").split("\n")
    assert lines[:-1] == said and len(said) == len(NAMES) + len(BYTES)
    assert not STEERING & set("".join(lines)) and "\t" not in "".join(lines)


def test_a_report_escapes_every_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in (*NAMES, *BYTES):
        run_dir = tmp_path / plain(name)
        run_dir.mkdir()
        if name not in BYTES:
            config = to_toml(to_tree(dataclasses.replace(recipe(), name=name)))
            (run_dir / "config.toml").write_text(config, encoding="utf-8")
        (run_dir / "log.txt").write_text(f"override: {name}\n", encoding="utf-8", errors="surrogateescape")
        (run_dir / "env.json").write_text(json.dumps({"cpu": name, "started": name}), encoding="utf-8")
        assert main(["report", str(run_dir), "--json"]) == 0, name
        page = (run_dir / "report.html").read_text(encoding="utf-8")
        assert "<script" not in page
        assert json.loads(capsys.readouterr().out)["run"] == str(run_dir)


# --- the rules of the package's own code ------------------------------------------------------------------------------


def calls(path: Path) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield node


@pytest.mark.parametrize("path", sorted(SRC.rglob("*.py")), ids=lambda path: str(path.relative_to(SRC)))
def test_nothing_reads_markup(path: Path) -> None:
    """Only output.py makes a console; nobody parses markup; what rich parses by itself is never a plain string."""
    source = path.read_text(encoding="utf-8")
    assert "rich.markup" not in source and "from_markup" not in source and "from rich import print" not in source
    for call in calls(path):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        keywords = {keyword.arg: keyword.value for keyword in call.keywords}
        assert name != "Console", f"{path}:{call.lineno}: use output.PlainConsole"
        if name == "TextColumn" and not isinstance(call.args[0], ast.Constant):
            raise AssertionError(f"{path}:{call.lineno}: a column of a fixed format")
        if (
            name == "TextColumn"
            and "task" in ast.unparse(call.args[0])
            and "percentage" not in ast.unparse(call.args[0])
        ):
            assert "markup" in keywords, f"{path}:{call.lineno}: TextColumn reads markup unless markup=False"
        if name == "Panel":
            for title in ("title", "subtitle"):
                assert title not in keywords or "styled(" in ast.unparse(keywords[title]), (
                    f"{path}:{call.lineno}: a Panel reads its title as markup: title=styled(...)"
                )


def test_a_whole_run_under_another_locale_is_the_same(text_file: Path, tmp_path: Path) -> None:
    """Names with umlauts under a locale of ASCII alone: configs and logs are UTF-8, and later stages find them."""
    tree = to_tree(recipe(iterations=2)) | {"name": "Größe [/2] :smile:"}
    (tmp_path / "Größe.toml").write_text(to_toml(tree), encoding="utf-8")
    (tmp_path / "süß\n日本.jsonl").write_bytes(text_file.read_bytes())
    environment = {
        **os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "OMP_NUM_THREADS": "1",
        "GOLFCORE_CACHE": str(tmp_path / "Lager ü"),
    }  # fmt: skip
    environment.pop("PYTHONIOENCODING", None)

    def golfcore(*words: str, folder: Path = tmp_path) -> bytes:
        done = subprocess.run(
            [sys.executable, "-m", "golfcore", *words], cwd=folder, env=environment, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    out = golfcore("run", "Größe.toml", "--text", "süß\n日本.jsonl", "--runs", "Läufe")
    last = json.loads(out.splitlines()[-1])
    run_dir = tmp_path / last["artifact"].removesuffix("/model.golf")
    assert run_dir.parent.name == "Läufe" and run_dir.name.startswith("Größe [_2] :smile:-")
    assert "Lager ü" in (run_dir / "config.toml").read_text(encoding="utf-8")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    golfcore("quantize", str(run_dir), folder=elsewhere)
    golfcore("pack", str(run_dir), folder=elsewhere)
    golfcore("report", str(run_dir), folder=elsewhere)


def test_a_task_for_skypilot_quotes_every_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        path = tmp_path / "task.yaml"
        monkeypatch.setattr(sys, "argv", ["golfcore", "sweep", "pocket", "--text", name, "--sky", str(path)])
        assert main(["sweep", "pocket", "--sky", str(path)]) == 0
        line = next(line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("run: "))
        assert shlex.split(json.loads(line.removeprefix("run: ")))[-2:] == ["--text", name]


def test_tensors_of_any_name_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.golf"
    tensors = [Tensor(f"a.{i}[/2]:smile:", "up", np.zeros(4, np.float32)) for i in range(2)]
    write(path, tensors, {"recipe [/2]": "[bold]"})
    assert main(["inspect", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "a.0[/2]:smile:" in shown and "recipe [/2]" in shown and "[bold]" in shown
