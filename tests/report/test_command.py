"""``golfcore report``."""

import json
from pathlib import Path

import pytest

from golfcore.cli.report import report


def test_it_prints_where_the_page_is(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report(run_dir)
    path = Path(capsys.readouterr().out.strip())
    assert path == run_dir / "report.html"
    assert path.is_file()


def test_json_is_the_runs_summary(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report(run_dir, json=True)
    answer = json.loads(capsys.readouterr().out)
    assert answer["score"]["val_bpb"] == 1.22436570
    assert answer["bytes"] == {"used": 985_312, "cap": 1_000_000, "free": 14_688}
    assert [phase["phase"] for phase in answer["phases"]] == ["warm-up", "train", "evaluate"]
    assert {verdict["state"] for verdict in answer["verdicts"]} == {"pass"}
    assert answer["report"] == str(run_dir / "report.html")
