"""``golfcore sample``: text on the way and as JSON, seeds, windows, marks, and what it refuses."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny import TINY, scrambled

import golfcore
from golfcore.artifact.model_io import save_model
from golfcore.cli import main
from golfcore.config import QuantConfig
from golfcore.errors import FormatError, InputError
from golfcore.evaluate import sampling
from golfcore.model import get_family
from golfcore.quant import quantize_state
from golfcore.tokenizer import Tokenizer

V = Tokenizer().vocab_size
BASE = ("--prompt", "The", "--tokens", "12", "--seed", "5")


def write(path: Path, tokenizer: bytes, vocab_size: int = V) -> Path:
    model = scrambled(TINY, vocab_size)
    stored = quantize_state(model.state_dict(), model.parameter_roles(), QuantConfig())
    save_model(path, get_family("gpt"), TINY, vocab_size, stored, tokenizer, {"eval": {"context": 16}})
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("model") / "m.golf", Tokenizer().to_bytes())


@pytest.fixture
def sample(model: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*words: str) -> tuple[int, str, str]:
        code = main(["sample", str(model), *words])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


def test_the_text_and_its_json_are_one(sample: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = sample(*BASE)
    found = json.loads(sample(*BASE, "--json")[1])
    assert (code, err) == (0, "")
    assert out == found["text"] + "\n"
    assert found["tokens"] == len(found["ids"]) <= 12 and found["prompt_tokens"] == 4 and found["seed"] == 5
    assert found["ended"] == ("tokens" if found["tokens"] == 12 else "mark")
    assert Tokenizer().decode(found["ids"]).decode(errors="replace") == found["text"]


def test_a_seed_repeats_a_text_and_no_seed_is_told(sample: Callable[..., tuple[int, str, str]]) -> None:
    texts = [sample("--prompt", "The", "--tokens", "12", "--seed", seed)[1] for seed in ("1", "1", "2")]
    assert texts[0] == texts[1] != texts[2]
    first, second = (json.loads(sample("--prompt", "The", "--tokens", "12", "--json")[1]) for _ in range(2))
    assert first["seed"] != second["seed"]
    again = json.loads(sample("--prompt", "The", "--tokens", "12", "--json", "--seed", str(first["seed"]))[1])
    assert again["ids"] == first["ids"]


def test_temperature_0_is_greedy_whatever_the_seed(sample: Callable[..., tuple[int, str, str]]) -> None:
    greedy = {sample("--prompt", "The", "--tokens", "12", "--seed", s, "--temperature", "0")[1] for s in "12"}
    tiny_share = sample("--prompt", "The", "--tokens", "12", "--top-p", "1e-9")[1]
    assert greedy == {tiny_share}


def test_standard_input_is_a_prompt(
    sample: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def given(data: bytes) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        return sample("--prompt", "-", *BASE[2:])

    assert given(b"The") == sample(*BASE)
    for data, said in ((b"", "the prompt is empty"), (b"a\xff", "not UTF-8")):
        code, _, err = given(data)
        assert code == 1 and said in err and err.count("\n") == 1
    assert sample("--prompt", "-dash", *BASE[2:])[0] == 0


def test_a_window_of_the_file_or_of_the_command(sample: Callable[..., tuple[int, str, str]]) -> None:
    """Sixteen tokens as the file says; the answers differ once one of them has slid."""
    long = ("--prompt", "x" * 40, "--tokens", "8", "--temperature", "0", "--no-stop", "--json")
    ids = {context: json.loads(sample(*long, "--context", context)[1])["ids"] for context in ("0", "16", "40")}
    assert ids["0"] == ids["16"] != ids["40"]


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[int]], None]:
    """Sets what the model draws."""

    def set_tokens(ids: list[int]) -> None:
        def drawn(*_: Any, **__: Any) -> Iterator[int]:
            return iter(ids)

        monkeypatch.setattr(sampling, "next_tokens", drawn)

    return set_tokens


TEXT = "aß日😀"


def test_a_mark_ends_the_text_unless_told_otherwise(
    sample: Callable[..., tuple[int, str, str]], tokens: Callable[[list[int]], None]
) -> None:
    ids = [int(i) for i in Tokenizer().encode(TEXT)]
    for mark in (Tokenizer.BOS, Tokenizer.EOS):
        tokens([*ids, mark, *ids])
        found = json.loads(sample("--prompt", "x", "--json")[1])
        assert (found["text"], found["ended"], found["ids"]) == (TEXT, "mark", [*ids, mark])
        found = json.loads(sample("--prompt", "x", "--json", "--no-stop")[1])
        assert (found["text"], found["ended"]) == (f"{TEXT}\n{TEXT}", "tokens")


class Chunks(io.StringIO):
    """Standard output that remembers each write."""

    def __init__(self, terminal: bool = False) -> None:
        super().__init__()
        self.chunks: list[str] = []
        self.terminal = terminal

    def write(self, text: str) -> int:
        self.chunks.append(text)
        return super().write(text)

    def isatty(self) -> bool:
        return self.terminal


def test_characters_are_written_when_they_are_complete(
    model: Path, tokens: Callable[[list[int]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens([int(i) for i in Tokenizer().encode(TEXT)])
    monkeypatch.setattr(sys, "stdout", out := Chunks())
    assert main(["sample", str(model), "--prompt", "x"]) == 0
    assert out.chunks == ["a", "ß", "日", "😀", "\n"]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_is_not_steered(
    model: Path, tokens: Callable[[list[int]], None], monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    tokens([int(i) for i in Tokenizer().encode("\x1b[2J\tx\n")])
    monkeypatch.setattr(sys, "stdout", out := Chunks(terminal))
    assert main(["sample", str(model), "--prompt", "x"]) == 0
    assert out.getvalue() == ("\\x1b[2J\tx\n\n" if terminal else "\x1b[2J\tx\n\n")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--prompt", ""), 1, "the prompt is empty"),
        (("--prompt", "a\udcff"), 1, "not UTF-8"),
        ((), 2, "--prompt"),
        (("--prompt", "x", "--temperature", "-1"), 2, "--temperature -1: expected a number, 0 to 1,000,000"),
        (("--prompt", "x", "--temperature", "nan"), 2, "--temperature nan"),
        (("--prompt", "x", "--top-p", "0"), 2, "--top-p 0: expected a share, above 0 and at most 1"),
        (("--prompt", "x", "--top-p", "1.1"), 2, "--top-p 1.1"),
        (("--prompt", "x", "--tokens", "0"), 2, "--tokens 0"),
        (("--prompt", "x", "--seed", "-1"), 2, "--seed -1"),
        (("--prompt", "x", "--context", "9999999"), 2, "--context 9999999"),
    ],
)
def test_wrong_words_are_one_line(
    sample: Callable[..., tuple[int, str, str]], words: tuple[str, ...], code: int, said: str
) -> None:
    found, out, err = sample(*words)
    assert (found, out) == (code, "") and said in err and err.count("\n") == 1


def test_files_that_cannot_serve_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="only the hash of its tokenizer"):
        golfcore.generate(write(tmp_path / "bare.golf", b""), "x")
    with pytest.raises(FormatError, match=f"the model has {V + 3} tokens, the tokenizer in its file {V}"):
        golfcore.generate(write(tmp_path / "other.golf", Tokenizer().to_bytes(), V + 3), "x")
    with pytest.raises(InputError, match=r"absent\.golf"):
        golfcore.generate(tmp_path / "absent.golf", "x")


def test_a_reader_that_goes_away_ends_it(model: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "golfcore",
        "sample",
        str(model),
        "--prompt",
        "x",
        "--tokens",
        "1000000",
        "--no-stop",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(3)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == -signal.SIGPIPE
