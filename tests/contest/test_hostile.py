"""Entries that are meant to hurt: nothing runs, leaves the folder, takes long or reaches a terminal."""

from __future__ import annotations

import base64
import bz2
import json
import lzma
import os
import sys
import zlib
from pathlib import Path

import pytest
from entries import log, write_entry

from golfcore.contest.check import Report, check_entry
from golfcore.contest.findings import clean
from golfcore.contest.folder import read_entry
from golfcore.contest.log_facts import read_log
from golfcore.contest.readme import read_readme
from golfcore.contest.render import as_json, as_markdown, as_sarif
from golfcore.contest.submission import parse_submission


def shim(data: bytes, decode: str = "lzma.decompress") -> str:
    return f'import base64,lzma,zlib,bz2\nexec({decode}(base64.b85decode("{base64.b85encode(data).decode()}")))\n'


def checked(tmp_path: Path, files: dict[str, str]) -> Report:
    return check_entry(write_entry(tmp_path, files))


def test_nothing_is_executed(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    code = f"open({str(mark)!r}, 'w').write('x')\nimport os\nos.system('touch {mark}')\n"
    files = {
        "train_gpt.py": shim(lzma.compress(code.encode())),
        "sitecustomize.py": code,
        "conftest.py": code,
        "setup.py": code,
        "golfcore.py": code,
        "run.sh": f"touch {mark}\n",
    }
    checked(tmp_path / "entry", files)
    assert not mark.exists()
    assert "sitecustomize" not in {Path(getattr(m, "__file__", "") or "").stem for m in list(sys.modules.values())
                                   if str(tmp_path) in str(getattr(m, "__file__", ""))}  # fmt: skip


@pytest.mark.parametrize("kind", ["lzma", "zlib", "bz2"])
def test_a_bomb_is_not_expanded(kind: str, tmp_path: Path) -> None:
    zeros = b"#" * 80_000_000
    data, decode = {
        "lzma": (lambda: lzma.compress(zeros, preset=0), "lzma.decompress"),
        "zlib": (lambda: zlib.compress(zeros), "zlib.decompress"),
        "bz2": (lambda: bz2.compress(zeros), "bz2.decompress"),
    }[kind]
    report = checked(tmp_path, {"train_gpt.py": shim(data(), decode)})
    assert any("expands to over" in text for text in report.not_checked)


def test_layers_within_layers(tmp_path: Path) -> None:
    text = "import torch\n"
    for _ in range(4):
        text = shim(lzma.compress(text.encode()))
    report = checked(tmp_path / "four", {"train_gpt.py": text})
    assert any("packed 4 deep" in f.explanation for f in report.findings)
    for _ in range(8):
        text = shim(lzma.compress(text.encode()))
    report = checked(tmp_path / "twelve", {"train_gpt.py": text})
    assert any("layers deep" in text for text in report.not_checked)


@pytest.mark.parametrize(
    "text",
    [
        "import base64, marshal\nexec(marshal.loads(base64.b64decode('4wAAAA==')))\n",
        "import pickle\nexec(pickle.loads(b'cos\\nsystem\\n(S\"true\"\\ntR.'))\n",
        "exec(__import__('os').popen('id').read())\n",
        "exec(open('/etc/passwd').read())\n",
        "x = y\ny = x\nexec(x)\n",
        "exec('a' * 10**9)\n",
        "import base64\nexec(base64.b85decode('!!!'))\n",
        "exec(eval(input()))\n",
    ],
)
def test_a_shim_that_cannot_be_read_is_said(text: str, tmp_path: Path) -> None:
    report = checked(tmp_path, {"train_gpt.py": text})
    assert any("packed code was not expanded" in note for note in report.not_checked)
    assert any(f.rule == "R3" and f.severity == "REVIEW" for f in report.findings)
    assert report.verdict != "ready"


@pytest.mark.parametrize(
    "text",
    [
        "(" * 5_000 + ")" * 5_000,
        "x = " + "-" * 100_000 + "1",
        "x = " + "[" * 150 + "]" * 150,
        "x = 1" + "+1" * 60_000,
        "a.b" + ".c" * 30_000,
        "f" + "()" * 20_000,
        "x = " + "not " * 50_000 + "1",
        "x = " + "lambda: " * 5_000 + "1",
        "if 1:\n" + "".join(" " * i + "if 1:\n" for i in range(1, 95)) + " " * 95 + "pass\n",
        "\0",
        "def f(:\n",
        "x = '" + "a" * 3_000_000 + "'\n",
        "\n".join(f"def f{i}(): return f{i + 1}()" for i in range(3_000)),
        "def f(x):\n    return f(f(x)) + f(x)\nf(f)\n",
        "class A(A): pass\nA().x.y.z()\n",
        "class A: pass\nclass B(A): pass\nA = B\nA()\n",
        "x = []\nx.append(x)\nfor y in x:\n    for z in y:\n        z.append(x)\nprint(len(x[0][0]))\n",
        "from . import train_gpt\nfrom train_gpt import *\nimport train_gpt as t\nt.t.t\n",
        "x = 1 << (1 << 40)\ny = 'a' * (10 ** 12)\nz = 10 ** 10 ** 10\n",
        "d = {}\nd['d'] = d\nprint(d['d']['d'])\nd.update(d)\n",
        "import copy\nclass M:\n    pass\nm = M()\nm.m = m\nn = copy.deepcopy(m)\nprint(n.m.m)\n",
        "def g():\n    yield from g()\nfor a in g():\n    for b in a:\n        pass\n",
        "match x:\n    case [a, b]:\n        pass\n",
        "while True:\n    while True:\n        while True:\n            x = x\n",
    ],
)  # fmt: skip
def test_odd_programs_end_in_a_report(text: str, tmp_path: Path) -> None:
    report = checked(tmp_path, {"train_gpt.py": text})
    assert report.verdict and report.not_checked


def test_links_and_devices(tmp_path: Path) -> None:
    secret = tmp_path / "secret.log"
    secret.write_text(log(7, 0.5))
    folder = write_entry(tmp_path / "entry")
    (folder / "train_seed7.log").symlink_to(secret)
    (folder / "up").symlink_to("..")
    (folder / "loop").symlink_to(".")
    (folder / "inner.log").symlink_to("train_seed42.log")
    os.mkfifo(folder / "pipe.log")
    entry = read_entry(folder)
    assert not {"train_seed7.log", "inner.log", "pipe.log"} & set(entry.files)
    texts = " ".join(finding.explanation for finding in entry.findings)
    assert "train_seed7.log is a link that leads out of the folder" in texts and "pipe.log is neither" in texts
    assert "0.5" not in json.dumps(as_json(check_entry(folder)))


def test_deep_folders_and_many_files(tmp_path: Path) -> None:
    folder = write_entry(tmp_path)
    deep = folder
    for _ in range(12):
        deep = deep / "d"
        deep.mkdir()
    (deep / "hidden.py").write_text("x = 1\n")
    assert any("folders deep" in f.explanation for f in check_entry(folder).findings)
    for index in range(2_100):
        (folder / f"f{index}.bin").touch()
    report = check_entry(folder)
    assert any("files beyond" in text for text in report.not_checked)


def test_large_and_foreign_texts(tmp_path: Path) -> None:
    folder = write_entry(tmp_path)
    (folder / "train_big.log").write_bytes(b"x" * 9_000_000)
    (folder / "README.md").write_bytes("# Entry 1.2 bpb é".encode("latin-1"))
    (folder / "notes.md").write_bytes("# Entry".encode("utf-16"))
    report = check_entry(folder)
    assert any("train_big.log" in text for text in report.not_checked)
    texts = " ".join(f.explanation for f in report.findings)
    assert "README.md is not UTF-8" in texts and "notes.md is UTF-16" in texts


@pytest.mark.parametrize(
    "line",
    [
        "val_bpb:" * 300_000,
        "step:" + "1" * 2_000_000,
        "seed" * 500_000,
        "a=" * 1_000_000,
        "|" * 1_000_000,
        ("| " + "a" * 50 + " ") * 20_000,
        "collected " + "hessians " * 200_000,
        "total submission " * 100_000,
        "1" + "," * 1_000_000,
        "\u2581" * 500_000,
        " " * 2_000_000 + ":",
        "A=" + "B=" * 300_000,
    ],
)
def test_long_lines_do_not_blow_up(line: str) -> None:
    """Linear work: the timeout of the tests would end it otherwise."""
    read_log("train.log", line)
    read_readme(line)
    parse_submission(line)
    clean(line)


def test_terminal_and_markup_are_neutralized(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from golfcore.cli.check import check

    evil = "\x1b]0;owned\x07\x1b[2J\u202e[bold]<script>alert(1)</script>](http://x) @everyone `x`"
    folder = write_entry(
        tmp_path, {"prepare.py": f"VAL_DOCS = 10_000  # {evil}\n"}, name=evil, date=evil, author=[evil]
    )
    (folder / f"train_{evil.replace('/', '_')}.log").write_text(log(5, 1.1, train_ms=700_000))
    check(folder)
    shown = capsys.readouterr().out
    report = check_entry(folder)
    comment = as_markdown(report)
    for text in (shown, comment, json.dumps(as_json(report), ensure_ascii=False), as_sarif(report)):
        assert not any(sign in text for sign in ("\x1b", "\x07", "\u202e"))
    outside = "\n".join(part for index, part in enumerate(comment.split("```")) if index % 2 == 0)
    assert "<script>" not in outside and "@everyone" not in outside and "](http" not in outside
    assert "cheat" not in shown.lower()


def test_a_fence_cannot_be_closed(tmp_path: Path) -> None:
    text = "VAL_DOCS = 10_000  # ``` </code></pre>\n"
    comment = as_markdown(checked(tmp_path, {"prepare.py": text}))
    assert "\n````\n" in comment


def test_numbers_that_are_none(tmp_path: Path) -> None:
    text = '{"val_bpb": NaN, "val_loss": Infinity, "bytes_total": 1e999, "seeds": [1e400, null], "x": '
    text += "9" * 5_000 + "}"
    report = check_entry(write_entry(tmp_path, {"submission.json": text.replace("9" * 5_000, "9" * 400)}))
    assert json.loads(json.dumps(as_json(report)))
    assert parse_submission(text).values.get("val_bpb") is None
