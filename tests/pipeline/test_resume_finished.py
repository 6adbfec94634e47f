"""A run that is resumed after its training: what is done is not done again, and what is discarded counts once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import golfcore
from golfcore.run_folder import ARTIFACT, LEDGER, LOG, OWNER, SCORE

TINY = {
    "track.train_s": 0, "track.eval_s": 50.0, "data.vocab_size": 320, "model.num_layers": 2, "model.model_dim": 64,
    "model.num_heads": 2, "model.num_kv_heads": 1, "train.batch_tokens": 512, "train.micro_batch_tokens": 512,
    "train.seq_len": 64, "train.iterations": 5, "train.warmup_steps": 0, "quant.calibration_tokens": 2048,
}  # fmt: skip


@pytest.fixture
def folder(text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GOLFCORE_CACHE", str(tmp_path / "cache"))
    result = golfcore.run("pocket", changes=TINY, text=text_file, runs=tmp_path / "runs", run_id="a")
    assert result is not None
    return result.run_dir


def seconds(folder: Path) -> dict[str, float]:
    return {row["phase"]: row["seconds"] for row in json.loads((folder / LEDGER).read_text())}


def spend(folder: Path, phase: str, seconds: float) -> None:
    """What an earlier attempt of a phase took, as it stands in the ledger."""
    rows = json.loads((folder / LEDGER).read_text())
    for row in rows:
        row["seconds"] += seconds if row["phase"] == phase else 0
    (folder / LEDGER).write_text(json.dumps(rows))


def test_a_finished_run_does_nothing_again(folder: Path) -> None:
    before, score = seconds(folder), (folder / SCORE).read_bytes()
    model = (folder / ARTIFACT).stat().st_mtime_ns
    result = golfcore.run(resume=folder)
    assert result is not None and not result.broken_limit()
    assert seconds(folder) == before
    assert (folder / ARTIFACT).stat().st_mtime_ns == model
    assert json.loads(score) == result.score
    log = (folder / LOG).read_text()
    assert log.count("step:5/5 ") == log.count("roundtrip_exact") == 1


def test_a_discarded_evaluation_does_not_count_twice(folder: Path) -> None:
    (folder / SCORE).unlink()
    spend(folder, "evaluate", 49.0)
    result = golfcore.run(resume=folder)
    assert result is not None and not result.broken_limit(), result
    assert result.eval_s < 40


def test_hessians_that_are_collected_again_count_once(folder: Path) -> None:
    (folder / ARTIFACT).unlink()
    spend(folder, "train", 1000.0)
    spend(folder, "quantise", 1000.0)
    result = golfcore.run(resume=folder)
    assert result is not None
    assert result.train_s < 60 and seconds(folder)["quantise"] < 60
    assert result.score["artifact_sha256"] == json.loads((folder / SCORE).read_text())["artifact_sha256"]


def test_a_score_of_another_file_is_not_taken(folder: Path) -> None:
    score = json.loads((folder / SCORE).read_text())
    (folder / SCORE).write_text(json.dumps(score | {"artifact_sha256": "0" * 64, "val_bpb": 0.1}))
    result = golfcore.run(resume=folder)
    assert result is not None and result.score["val_bpb"] == score["val_bpb"]


@pytest.mark.parametrize("damage", ["cut", "one bit"])
def test_a_damaged_file_is_made_again(damage: str, folder: Path) -> None:
    content = (folder / ARTIFACT).read_bytes()
    middle = len(content) // 2
    torn = (
        content[:middle] if damage == "cut" else content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    )
    (folder / ARTIFACT).write_bytes(torn)
    result = golfcore.run(resume=folder)
    assert result is not None and result.artifact.read_bytes() == content


def test_a_run_is_packed_elsewhere_without_a_trace(folder: Path, tmp_path: Path) -> None:
    (folder / OWNER).unlink()
    golfcore.pack(folder, tmp_path / "other.golf")
    assert (tmp_path / "other.golf").read_bytes() == (folder / ARTIFACT).read_bytes()
    assert not (folder / OWNER).exists()
