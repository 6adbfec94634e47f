"""``golfcore probe`` as an organizer meets it: on a packed model, on a stranger's file, on what cannot be probed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny import packed

from golfcore.cli import main
from golfcore.errors import InputError
from golfcore.pipeline import probe

PROBES = {
    "phase timing", "ledger replay", "future-flip", "target-flip", "probability mass", "uniform noise", "denominator",
    "fresh process",
}  # fmt: skip


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("Ärger again, and again the same words: ärger. " * 12)
    return path


def test_a_packed_model_passes_as_it_is_scored(text: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    artifact = packed(tmp_path / "model.golf", adapt="mix", stride=8)
    assert main(["probe", str(artifact), "--text", str(text), "--tokens", "40", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["passed"] and found["tokens"] == 40
    assert {row["name"]: row["passed"] for row in found["probes"]} == dict.fromkeys(PROBES, True)
    assert (found["windows"], found["adapt"]) == ([32, 8], "mix")


CHEAT = """
import numpy as np
vocab_size = 260
def score(tokens):
    counts = np.full((260, 260), 0.1)
    np.add.at(counts, (tokens[:-1], tokens[1:]), 1)
    return -np.log((counts / counts.sum(1, keepdims=True))[tokens[:-1], tokens[1:]])
"""


def test_a_strangers_cheat_fails_and_never_runs_in_our_process(
    text: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cheat.py"
    file.write_text(CHEAT + "import sys\nsys.ran_the_cheat = True\n")
    assert main(["probe", "--scorer", str(file), "--text", str(text), "--tokens", "60"]) == 1
    said = capfd.readouterr()
    assert "executed now, in a process of its own" in said.err
    assert "future-flip" in said.out and "FAILED" in said.out and "moved the loss of token" in said.out
    assert "at least one probe failed" in said.out
    assert not hasattr(sys, "ran_the_cheat")


def test_a_scorer_reads_the_file_beside_it(text: Path, tmp_path: Path) -> None:
    (tmp_path / "weights.npy").write_bytes(b"")
    np.save(tmp_path / "weights.npy", np.full(300, np.log(300)))
    file = tmp_path / "scorer.py"
    file.write_text(
        "import numpy as np\nloss = np.load('weights.npy')\nvocab_size = len(loss)\n"
        "def score(tokens): return loss[tokens[1:]]\n"
    )
    found = probe.probe_file(file, [text], beside=[tmp_path / "weights.npy"], tokens=40)
    assert found["passed"]
    assert found["text_tokens"] == pytest.approx(text.stat().st_size, abs=3)
    file.write_text(file.read_text().replace("'weights.npy'", repr(str(tmp_path / "weights.npy"))))
    (fresh,) = (row for row in probe.probe_file(file, [text], tokens=40)["probes"] if row["name"] == "fresh process")
    assert not fresh["passed"] and "weights.npy" in fresh["found"]


def test_what_cannot_be_probed_is_one_line(text: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "small.py"
    file.write_text("import numpy as np\nvocab_size = 9\ndef score(tokens): return np.ones(len(tokens) - 1)\n")
    with pytest.raises(InputError, match="9 tokens and no encode"):
        probe.probe_file(file, [text])
    file.write_text(file.read_text() + "def encode(text): return [300] * len(text)\n")
    with pytest.raises(InputError, match="encode gave an answer of the wrong kind"):
        probe.probe_file(file, [text])
    short = tmp_path / "short.txt"
    short.write_text("too short")
    file.write_text(file.read_text().replace("9", "260").replace("def encode", "def unused"))
    with pytest.raises(InputError, match="at least 16"):
        probe.probe_file(file, [short])
    for words in (["probe"], ["probe", "--text", str(text)], ["probe", "--scorer", str(file), "--adapt", "mix"]):
        assert main(words) == 2
    assert "--text FILE" in capfd.readouterr().err
