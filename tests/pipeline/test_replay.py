"""A score that is repeated from its score.json: the same to the last bit, or a sentence on what differs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import packed

from golfcore import api
from golfcore.cli import main
from golfcore.errors import FormatError, GolfError, InputError
from golfcore.pipeline.replay import compare, read_record, replay


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model.golf, its text, and the score.json of a mixture in windows that a clock chose."""
    folder = tmp_path_factory.mktemp("scored")
    packed(folder / "model.golf", adapt="mix", stride="auto", finest_stride=8, budget_s=500.0)
    (folder / "text.txt").write_text("the same words again, and again the same words. " * 12)
    result = api.score(folder / "model.golf", text=folder / "text.txt")
    (folder / "score.json").write_text(json.dumps(result))
    return folder


def known(scored: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((scored / "score.json").read_text())
    return found


def test_the_record_says_which_state_scored_what(scored: Path) -> None:
    score = known(scored)
    assert score["documents"] == 1 and score["tokens"] == score["bytes"] == 12 * 48 - 1 + 1
    assert set(score["seconds"]) == {"start", "artifact", "text", "probes", "score"}
    firsts, lasts = zip(*(entry["tokens"] for entry in score["ledger"]), strict=True)
    assert firsts == (1, *(last + 1 for last in lasts[:-1])) and lasts[-1] == score["tokens"]
    assert [entry["learned"] for entry in score["ledger"]] == list(firsts)  # all tokens before the piece
    assert len({entry["state"] for entry in score["ledger"]}) == len(firsts)
    assert len(score["tokenizer_sha256"]) == 64


def test_a_replay_repeats_every_loss(scored: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--replay", str(scored / "score.json")]) == 0
    said = capfd.readouterr().out
    assert said.count(f"{known(scored)['val_bpb']:.8f} bits per byte") == 2
    assert "the same: every loss to the last bit" in said


def test_changed_strides_are_repeated_where_they_were(scored: Path, tmp_path: Path) -> None:
    """A clock that changed its mind: other windows from a token on are another score, and are found to be."""
    found = replay(scored / "score.json")
    later = known(scored) | {"pace": known(scored)["pace"] | {"strides": [[1, 8], [129, 32]]}}
    (tmp_path / "score.json").write_text(json.dumps(later))
    other = replay(tmp_path / "score.json")
    assert (found["same"], found["difference"]) == ("losses", 0)
    assert other["same"] == "" and other["difference"] > 1e-9 and "another score" in other["verdict"]
    assert main(["eval", "--json", "--replay", str(tmp_path / "score.json")]) == 1
    (tmp_path / "score.json").write_text(json.dumps(later | other["replayed"] | {"pace": later["pace"]}))
    assert replay(tmp_path / "score.json")["same"] == "losses"


def test_moved_files_are_named_and_others_refused(scored: Path, tmp_path: Path) -> None:
    record = known(scored) | {"artifact": "gone/model.golf", "source": {"text": ["gone.txt"]}}
    path = tmp_path / "score.json"
    path.write_text(json.dumps(record))
    with pytest.raises(InputError, match="no such file; name the artifact"):
        replay(path)
    there, text = scored / "model.golf", [scored / "text.txt"]
    with pytest.raises(GolfError, match=r"gone\.txt"):
        replay(path, artifact=there)
    assert replay(path, artifact=there, text=text)["same"] == "losses"
    (tmp_path / "other.txt").write_text("another text " * 20)
    with pytest.raises(InputError, match="the text has hash"):
        replay(path, artifact=there, text=[tmp_path / "other.txt"])
    other = packed(tmp_path / "other.golf", adapt="mix", stride=16)
    with pytest.raises(InputError, match="that was scored"):
        replay(path, artifact=other, text=text)
    assert main(["eval", "--replay", str(path), "--stride", "8"]) == 2
    assert main(["eval"]) == 2


def test_what_differs_is_said(scored: Path) -> None:
    one = known(scored)

    def against(**changes: object) -> tuple[str, str]:
        found = compare(one, one | changes)
        return found["same"], found["verdict"]

    assert against()[0] == "losses"
    rounded, words = against(ledger_sha256="0", val_bpb=one["val_bpb"] + 5e-10, precision="float64")
    assert rounded == "bits per byte" and f"precision {one['precision']} then, float64 now" in words
    other = one["made_by"] | {"packages": one["made_by"]["packages"] | {"torch": "9.9"}}
    apart, words = against(ledger_sha256="0", val_bpb=one["val_bpb"] + 2e-9, made_by=other)
    assert apart == "" and words.endswith(f"(torch {one['made_by']['packages']['torch']} then, 9.9 now)")
    assert "tokens 5 instead of" in against(tokens=5)[1]
    state = [one["ledger"][0] | {"state": "0" * 64}, *one["ledger"][1:]]
    assert "another adaptive state before token 1" in against(ledger=state)[1]


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (lambda s: [], InputError, "no artifact to replay"),
        (lambda s: {k: v for k, v in s.items() if k != "batch_tokens"}, InputError, "no batch_tokens to replay"),
        (lambda s: s | {"context": 0}, FormatError, "context"),
        (lambda s: s | {"adapt": "learn"}, FormatError, "expected none or mix"),
        (lambda s: s | {"pace": {"strides": [[2, 8]]}}, FormatError, "do not cover"),
        (lambda s: s | {"pace": {"strides": [[1, 8], [1, 4]]}}, FormatError, "do not cover"),
        (lambda s: s | {"pace": {"strides": [[1, 33]]}}, FormatError, "do not cover"),
        (lambda s: s | {"pace": {"strides": 7}}, FormatError, "no pairs"),
        (lambda s: s | {"pace": {}}, FormatError, "no pairs"),
        (lambda s: s | {"pace": {"strides": []}}, FormatError, "do not cover"),
    ],
)
def test_a_damaged_record_is_one_line(
    scored: Path, tmp_path: Path, change: Callable[[dict[str, Any]], Any], kind: type[GolfError], message: str
) -> None:
    path = tmp_path / "score.json"
    path.write_text(json.dumps(change(known(scored))))
    with pytest.raises(kind, match=message):
        read_record(path)


def test_a_file_that_is_no_record_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        read_record(tmp_path / "score.json")
    (tmp_path / "score.json").write_text("{")
    with pytest.raises(FormatError, match="not JSON"):
        read_record(tmp_path / "score.json")
    damaged = {"tokens": 3, "bytes": 3, "val_bpb": 1.0, "ledger": [3], "ledger_sha256": ""}
    with pytest.raises(FormatError, match="an entry without"):
        compare(damaged, damaged | {"ledger": []})
