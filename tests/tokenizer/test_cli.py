"""The commands of ``golfcore tok``."""

import io
import json
import sys
from pathlib import Path

import pytest

from golfcore.cli.tok import app
from golfcore.errors import InputError, UsageError
from golfcore.tokenizer import Tokenizer


def run(*args: object) -> None:
    app([str(arg) for arg in args], exit_on_error=False, print_error=False, result_action="return_value")


def give_stdin(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


@pytest.fixture
def bpe(tmp_path: Path) -> Path:
    path = tmp_path / "t.bpe"
    Tokenizer.train([b"low lower lowest"], 263).save(path)
    return path


def test_encode_and_decode_are_inverse(
    bpe: Path, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"lowest \xff\r\n caf\xc3\xa9"
    (tmp_path / "doc").write_bytes(content)
    run("encode", tmp_path / "doc", "--tokenizer", bpe)
    printed = capsysbinary.readouterr().out
    assert [int(word) for word in printed.split()] == Tokenizer.load(bpe).encode(content).tolist()
    give_stdin(monkeypatch, printed)
    run("decode", "-", "--tokenizer", bpe)
    assert capsysbinary.readouterr().out == content


def test_json(bpe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    give_stdin(monkeypatch, b"low \xff")
    run("encode", "-", "--tokenizer", bpe, "--json")
    found = json.loads(capsys.readouterr().out)
    assert found == {"ids": Tokenizer.load(bpe).encode(b"low \xff").tolist(), "tokens": 3, "bytes": 5}
    give_stdin(monkeypatch, " ".join(map(str, found["ids"])).encode())
    run("decode", "-", "--tokenizer", bpe, "--json")
    assert json.loads(capsys.readouterr().out) == {"text": "low \ufffd", "utf8": False, "bytes": 5, "tokens": 3}


def test_what_cannot_be_read(bpe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"cannot read .*missing"):
        run("encode", tmp_path / "missing", "--tokenizer", bpe)
    with pytest.raises(InputError, match=r"missing\.bpe"):
        run("encode", bpe, "--tokenizer", tmp_path / "missing.bpe")
    for content in (b"5 six 7", b"5 -6", b"5 " + b"6" * 5000):
        give_stdin(monkeypatch, content)
        with pytest.raises(InputError, match="is no id"):
            run("decode", "-", "--tokenizer", bpe)


def test_train_and_audit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("golfcore.data.text")
    docs = ["low lower lowest", "caf\u00e9 lower\n\nlow", "\U0001f600 lowest"]
    (tmp_path / "docs.jsonl").write_text("".join(json.dumps({"text": doc}) + "\n" for doc in docs))
    run("train", tmp_path / "docs.jsonl", "-o", tmp_path / "t.bpe", "--vocab-size", 264, "--json")
    found = json.loads(capsys.readouterr().out)
    tokenizer = Tokenizer.load(tmp_path / "t.bpe")
    assert tokenizer.sha256 == found["sha256"] == Tokenizer.train([doc.encode() for doc in docs], 264).sha256
    assert (found["vocab_size"], found["documents"]) == (264, 3)

    run("audit", tmp_path / "docs.jsonl", "--tokenizer", tmp_path / "t.bpe", "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is True
    assert found["text_bytes"] == found["table_bytes"] == found["decoded_bytes"] == sum(len(d.encode()) for d in docs)
    run("audit", tmp_path / "docs.jsonl", "--tokenizer", tmp_path / "t.bpe")
    assert "bytes per token" in capsys.readouterr().out


def test_audit_fails_with_exit_code_1(bpe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("golfcore.data.text")
    (tmp_path / "doc.txt").write_text("low")
    monkeypatch.setattr(Tokenizer, "decode", lambda self, ids: b"low?")
    with pytest.raises(SystemExit) as stopped:
        run("audit", tmp_path / "doc.txt", "--tokenizer", bpe)
    assert stopped.value.code == 1


def test_no_text_is_wrong_usage(bpe: Path) -> None:
    pytest.importorskip("golfcore.data.text")
    with pytest.raises(UsageError, match="no text given"):
        run("audit", "--tokenizer", bpe)
