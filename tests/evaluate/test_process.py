"""A stranger's file in a process of its own: what it sees, what it can reach, and every way in which it may break."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import numpy as np
import pytest

from golfcore.errors import InputError
from golfcore.evaluate import serve
from golfcore.evaluate.probes import process as process_module
from golfcore.evaluate.probes.process import scorer_process

TOKENS = np.array([1, 2, 3, 4, 5])
PLAIN = """
import numpy as np
vocab_size = 8
def score(tokens):
    print("what a scorer prints is no answer")
    return np.full(len(tokens) - 1, np.log(8))
"""


def written(folder: Path, source: str) -> Path:
    path = folder / "stranger.py"
    path.write_text(source)
    return path


def test_its_answers_come_back_as_numbers(tmp_path: Path) -> None:
    source = (
        PLAIN
        + """
def predict(prefix): return [-np.inf] * 4 + [np.float32(-1.5)] * 4
def ledger(tokens): return [(1, np.int64(4), b"x")]
def byte_counts(tokens): return np.ones(len(tokens) - 1, np.uint16)
def decode(tokens): return "\\ufffd"
def encode(text): return list(text)
"""
    )
    with scorer_process(written(tmp_path, source)) as found:
        scorer = found.scorer
        assert scorer.vocab_size == 8 and found.load_s > 0
        assert scorer.losses(TOKENS).tolist() == [np.log(8)] * 4
        assert scorer.log_probabilities(TOKENS).tolist() == [-np.inf] * 4 + [-1.5] * 4
        assert scorer.ledger is not None and scorer.ledger(TOKENS) == [(1, 4, "b'x'")]
        assert scorer.byte_counts is not None and list(scorer.byte_counts(TOKENS)) == [1] * 4
        assert scorer.decode is not None and scorer.decode(TOKENS) == b"\xef\xbf\xbd"
        assert scorer.encode is not None and list(scorer.encode(b"\x00\x07")) == [0, 7]


def test_it_lives_in_an_empty_folder_without_our_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hush")
    (tmp_path / "weights.bin").write_bytes(b"\x07")
    source = PLAIN.replace(
        "vocab_size = 8",
        """
import os
found = sorted(os.listdir("."))
vocab_size = 100 * len(found) + open("weights.bin", "rb").read()[0] + ("SECRET_TOKEN" in os.environ)
assert os.environ["HOME"] == os.getcwd()
""",
    )
    with scorer_process(written(tmp_path, source), [tmp_path / "weights.bin"]) as found:
        assert found.scorer.vocab_size == 207  # two files, and no secret
        assert found.surroundings().opened == ()


def test_files_outside_and_calls_are_seen(tmp_path: Path) -> None:
    outside = tmp_path / "fineweb_val_000000.bin"
    outside.write_bytes(b"answers")
    source = (
        PLAIN
        + f"""
import socket
def predict(prefix):
    try:
        socket.create_connection(("127.0.0.1", 9), timeout=1)
    except OSError:
        pass
    return np.fromfile(open({str(outside)!r}, "rb"), np.uint8)[:1] * np.ones(8)
"""
    )
    with scorer_process(written(tmp_path, source)) as found:
        assert found.scorer.predict is not None
        found.scorer.predict(TOKENS)
        around = found.surroundings()
    assert around.opened == (str(outside.resolve()),)
    assert any("127.0.0.1" in address for address in around.called)


def test_where_the_network_is_cut_off_not_even_this_machine_answers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        source = (
            PLAIN
            + f"""
import socket
def predict(prefix):
    try:
        socket.create_connection(("127.0.0.1", {server.getsockname()[1]}), timeout=5).close()
    except OSError:
        return np.zeros(8)
    return np.ones(8)
"""
        )
        with scorer_process(written(tmp_path, source)) as found:
            assert found.scorer.predict is not None
            reached = bool(found.scorer.predict(TOKENS)[0])
            assert reached != found.surroundings().network


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("vocab_size = 8", "defines no score"),
        ("raise ValueError('broken\\nin two lines')", "load failed: ValueError: broken in two lines"),
        ("def score(:", "load failed: SyntaxError"),
        ("import os; os._exit(3)", "its process ended with exit code 3"),
        ("import os, sys; sys.stderr.write('last words'); sys.stderr.flush(); os.kill(os.getpid(), 9)", "last words"),
        ("import sys; sys.exit('no')", "load failed: SystemExit: no"),
        ("vocab_size = 1\ndef score(tokens): pass", "vocab_size is 1; expected"),
        ("vocab_size = 'many'\ndef score(tokens): pass", "vocab_size failed: ValueError"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(InputError) as at, scorer_process(written(tmp_path, source)):
        pass
    assert message in str(at.value) and "stranger.py" in str(at.value) and "\n" not in str(at.value)


@pytest.mark.parametrize("answer", ["None", "object()", "'text'", "{1: 2}", "1 / 0"])
def test_a_broken_answer_is_one_line(tmp_path: Path, answer: str) -> None:
    source = f"vocab_size = 8\ndef score(tokens): return {answer}"
    with scorer_process(written(tmp_path, source)) as found, pytest.raises(Exception, match="score") as at:
        found.scorer.losses(TOKENS)
    assert "\n" not in str(at.value)


def test_what_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module, "ANSWER_S", 0.2)
    source = "import time\ntime.sleep(1000)"
    with pytest.raises(InputError, match="gave no answer"), scorer_process(written(tmp_path, source)):
        pass


def test_an_endless_answer_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module, "MOST_BYTES", 10_000)
    source = "vocab_size = 8\ndef score(tokens): return [0.5] * 5_000"
    with scorer_process(written(tmp_path, source)) as found, pytest.raises(InputError, match="an answer above"):
        found.scorer.losses(TOKENS)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"), scorer_process(tmp_path / "absent.py"):
        pass


def test_the_watch_knows_the_working_folder_and_the_packages(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in" / "a", tmp_path / "b"
    inside.parent.mkdir()
    for path in (inside, outside):
        path.write_text("x")
    watch = serve.Watch(str(inside.parent))
    for path in (str(inside), os.fsencode(inside), np.__file__, str(outside), os.fsencode(outside), 3, str(tmp_path)):
        watch("open", (path, "r", 0))
    watch("socket.getaddrinfo", ("example.org", 80, 0, 0, 0))
    assert (watch.opened, watch.called) == ([str(outside.resolve())], ["example.org"])
    for number in range(2 * serve.MOST):
        watch("socket.getaddrinfo", (f"host{number}", 80, 0, 0, 0))
    assert len(watch.called) == serve.MOST
