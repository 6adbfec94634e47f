"""Results of benchmarks are added to their file, never rewritten."""

import csv
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SOURCE = Path(__file__).parents[2] / "bench" / "record.py"


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("record", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "record", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    return module


def test_rows_are_appended_under_one_header(record: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/bench/bench_x.py", "--text", "/somewhere/else/t.jsonl", "--save"])
    first = record.Result("encode, 1 MB", "golfcore", "time p50", 0.25, "s")
    second = record.Result("encode, 1 MB", "other", "time p50", 1 / 3, "s")
    path = record.append("x", [first], ["numpy", "no-such-package"])
    before = path.read_text()
    assert record.append("x", [second], ["numpy"]) == path
    assert path.read_text().startswith(before)
    rows = list(csv.DictReader(path.open()))
    assert [tuple(row) for row in rows] == [record.COLUMNS] * 2
    assert [(row["backend"], row["value"]) for row in rows] == [("golfcore", "0.25"), ("other", "0.333333")]
    assert all(row["command"] == "python bench/bench_x.py --text t.jsonl --save" for row in rows)
    assert all("numpy" in row["versions"] and "no-such" not in row["versions"] for row in rows)


def test_without_git_the_commit_is_unknown(record: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(record, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert record.commit() == "unknown"
