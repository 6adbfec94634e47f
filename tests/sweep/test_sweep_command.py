"""``golfcore sweep``: real runs, its table and JSON, going on, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from tiny import recipe

from golfcore.cli import main
from golfcore.cli.sweep import _resolved, _table
from golfcore.config import to_toml, to_tree
from golfcore.sweep.queue import Entry
from golfcore.sweep.spec import Job


@pytest.fixture
def words(tmp_path: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A sweep of a tiny recipe, up to its axes."""
    monkeypatch.setenv("GOLFCORE_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "tiny.toml"
    path.write_text(to_toml(to_tree(recipe(iterations=2))))
    return ["sweep", str(path), "--text", str(text_file), "--folder", str(tmp_path / "s"), "--jobs", "2"]


def swept(capsys: pytest.CaptureFixture[str], words: list[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    return json.loads(out)


def test_real_runs_and_the_same_command_again(
    words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = [*words, "--set", "optim.matrix_lr=0.01,0.05", "--set", "train.log_every=1"]
    found = swept(capsys, words)
    assert found["totals"] == {"waiting": 0, "running": 0, "done": 2, "stopped": 0, "failed": 0}
    assert [row["variant"] for row in found["variants"]] != [None]
    assert {tuple(row["sets"]) for row in found["variants"]} == {("optim.matrix_lr=0.01",), ("optim.matrix_lr=0.05",)}
    for run in found["runs"]:
        config = (Path(run["run"]) / "config.toml").read_text()
        assert f"matrix_lr = {run['variant'].removeprefix('matrix_lr=')}" in config
        assert "log_every = 1\n" in config
        assert f"seed = {run['seed']}\n" in config
    assert swept(capsys, words) == found  # nothing is left to do
    assert main([*words, "--seeds", "2"]) == 2
    assert "holds another sweep (seeds: [1337], now [1337, 1338])" in " ".join(capsys.readouterr().err.split())
    assert main(words) == 0
    shown = capsys.readouterr()
    assert "bits per byte" in shown.out
    assert f"golfcore report {tmp_path / 's'} --compare 000-matrix_lr=0.01-s1337" in shown.out
    assert main(["report", str(tmp_path / "s"), "--compare", "000-matrix_lr=0.01-s1337", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["variants"]) == 2


def test_a_run_that_cannot_work_is_told_and_makes_the_sweep_fail(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--set", "track.cap_bytes=100,101", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["totals"]["failed"] == 2
    assert all("the model will not fit" in run["note"] for run in found["runs"])


def test_a_narrow_terminal_cuts_no_number() -> None:
    job = Job("000-a-s1", "matrix_lr=0.02 order=sequential warmdown_iters=12", (), 1)
    result = {"val_bpb": 1.23456, "artifact_bytes": 15_987_654}
    entries = [
        Entry(seed, dataclasses.replace(job, seed=seed), "done", None, None, 1, None, result, "", None, None)
        for seed in range(2)
    ]  # fmt: skip
    with (console := Console(width=80)).capture() as shown:
        console.print(_table(Path("sweeps/x"), entries))
    text = shown.get()
    assert "…" not in text
    for words in ("matrix_lr=0.02", "order=sequential", "2/2", "1.2346", "± 0.0000", "15,987,654"):
        assert words in text


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--set", "optim.matrix_lrs=1,2"], "matrix_lr"),
        (["--set", "optim.matrix_lr=0.1,fast"], "optim.matrix_lr"),
        (["--set", "optim.matrix_lr=-1..1"], "optim.matrix_lr"),
        (["--set", "optim.matrix_lr=0.1..0.2"], "--trials"),
        (["--trials", "3"], "--trials 3"),
        (["--seeds", "0"], "--seeds 0"),
        (["--stop-margin", "-1"], "--stop-margin"),
        (["--stop-after", "2"], "--stop-after"),
        (["--cluster-arg", "a=1"], "--cluster-arg"),
        (["--cluster", "local", "--cluster-arg", "timeout"], "--cluster-arg timeout"),
        (["--jobs", "100000"], "--jobs 100000"),
        (["--reference", "/nowhere"], "no training curve"),
    ],
)
def test_wrong_words(words: list[str], more: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    if "--jobs" in more:
        words = words[: words.index("--jobs")]
    assert main([*words, *more]) in (1, 2)
    assert said in capsys.readouterr().err


def test_runs_that_are_compared_have_one_stride() -> None:
    assert _resolved("pocket_frontier", [], None)[0].eval.stride == 64
    assert _resolved("pocket_frontier", ["eval.stride=auto"], None)[0].eval.stride == "auto"
    assert _resolved("pocket", ["optim.matrix_lr=0.01,0.02"], None)[0].eval.stride == 0


def test_a_sky_file_holds_this_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sweep.yaml"
    words = ["sweep", "pocket", "--sky", str(path), "--set", "optim.matrix_lr=0.02,0.03", "--accelerators=H100:1"]
    monkeypatch.setattr(sys, "argv", ["golfcore", *words])
    assert main(words) == 0
    task = yaml.safe_load(path.read_text())
    assert task["run"].endswith("golfcore sweep pocket --set optim.matrix_lr=0.02,0.03")
    assert task["resources"]["accelerators"] == "H100:1"
    assert str(path) in capsys.readouterr().out
