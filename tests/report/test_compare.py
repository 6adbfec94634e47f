"""Several runs on one page: variants, their order, what is said of the difference, and hostile folders."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from scipy import stats
from tiny import recipe

from golfcore.cli import main
from golfcore.config import to_toml, to_tree
from golfcore.errors import InputError
from golfcore.report.compare import build_comparison, comparison
from golfcore.report.variants import load_runs
from golfcore.stats import mean_interval


def write_run(folder: Path, name: str, lr: float, seed: int, bpb: float | None, *, points: int = 30) -> None:
    run = folder / name
    run.mkdir(parents=True)
    config = recipe(seed=seed)
    config = dataclasses.replace(config, optim=dataclasses.replace(config.optim, matrix_lr=lr))
    (run / "config.toml").write_text(to_toml(to_tree(config)))
    rows = [
        {"kind": "train", "step": step, "train_loss": 2 + lr + 1 / step, "train_s": step / 2, "tokens": step}
        for step in range(1, points + 1)
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if bpb is not None:
        (run / "score.json").write_text(json.dumps({"val_bpb": bpb}))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    for seed, offset in ((1, 0.0), (2, 0.002), (3, -0.002)):
        write_run(folder, f"a{seed}", 0.02, seed, 1.80 + offset)
        write_run(folder, f"b{seed}", 0.03, seed, 1.70 + offset)
        write_run(folder, f"c{seed}", 0.04, seed, 1.801 + 3 * offset)
    write_run(folder, "d1", 0.5, 1, None)
    (folder / "locks").mkdir()
    return folder


def test_variants_are_ranked_and_told_apart_from_the_base(runs: Path) -> None:
    found = comparison(runs, "a1")
    rows = found["variants"]
    assert [(row["label"], row["verdict"]) for row in rows] == [
        ("matrix_lr 0.03", "better"), ("base", "base"), ("matrix_lr 0.04", "even"), ("matrix_lr 0.5", "unscored"),
    ]  # fmt: skip
    assert rows[0]["delta"] == pytest.approx(-0.1)
    assert rows[0]["changed"] == {"optim.matrix_lr": [0.02, 0.03]}
    assert [run["name"] for run in rows[0]["runs"]] == ["b1", "b2", "b3"]
    error = math.sqrt(2 * 0.002**2 / 3)
    assert rows[0]["delta_half_width"] == pytest.approx(stats.t.ppf(0.975, 2) * error, rel=1e-3)
    assert comparison(runs, "b2")["variants"][1]["verdict"] == "worse"


def test_one_seed_shows_nothing(tmp_path: Path) -> None:
    for name, lr, bpb in (("a", 0.02, 1.8), ("b", 0.03, 1.7)):
        write_run(tmp_path, name, lr, 1, bpb)
    row = comparison(tmp_path, "a")["variants"][0]
    assert (row["verdict"], row["half_width"], row["delta_half_width"]) == ("unsure", None, None)


@pytest.mark.parametrize("count", [2, 3, 10, 31, 32, 200])
def test_intervals_are_students(count: int) -> None:
    values = [math.sin(i) for i in range(count)]
    mean, half = mean_interval(values)
    low, high = stats.t.interval(0.95, count - 1, loc=mean, scale=stats.sem(values))
    assert half is not None
    assert (mean - half, mean + half) == (pytest.approx(low, abs=2e-4), pytest.approx(high, abs=2e-4))
    assert mean_interval([1.5]) == (1.5, None)


def test_the_page(runs: Path) -> None:
    text = build_comparison(runs, "a1").read_text()
    assert text.index("matrix_lr 0.03") < text.index("matrix_lr 0.04")
    assert "1.7000" in text
    assert "better, beyond the spread" in text
    assert "d1 (unscored)" in text
    assert text.count("<svg") >= 6  # the flag, two drawings, a strip for each variant with a score
    assert "<script" not in text
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org", "")
    assert build_comparison(runs, "a1").read_text() == text


def test_a_base_from_elsewhere_joins_the_runs(runs: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "other", "base", 0.9, 1, 1.9)
    found = comparison(runs, str(tmp_path / "other" / "base"))
    assert found["runs"] == 11
    assert found["variants"][-2]["verdict"] == "base"


def test_nothing_is_scored_and_nothing_logged(tmp_path: Path) -> None:
    write_run(tmp_path, "a", 0.02, 1, None, points=0)
    write_run(tmp_path, "b", 0.03, 1, None, points=1)
    text = build_comparison(tmp_path, "a").read_text()
    assert "none of these runs has a score yet" in text
    assert "No step has been logged yet." in text


def test_more_variants_than_a_drawing_holds(tmp_path: Path) -> None:
    for number in range(12):
        write_run(tmp_path, f"r{number:02d}", 0.01 * (number + 1), 1, 1.7 + 0.01 * number)
    text = build_comparison(tmp_path, "r11").read_text()
    assert "5 more are in the ranking alone" in text


@pytest.mark.parametrize("value", ["NaN", '"x"', "1e999", "null", "[]", "-Infinity"])
def test_a_score_that_is_no_number_is_not_ranked(runs: Path, value: str) -> None:
    (runs / "b1" / "score.json").write_text(f'{{"val_bpb": {value}}}')
    (runs / "b2" / "metrics.jsonl").write_text('{"kind": "train", "step": 1, "train_loss": 1e308, "train_s": -5}\nx\n')
    (row,) = [row for row in comparison(runs, "a1")["variants"] if row["label"] == "matrix_lr 0.03"]
    assert len(row["scores"]) == 2
    build_comparison(runs, "a1")


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    write_run(tmp_path, "a", 0.02, 1, 1.8)
    write_run(tmp_path, "<b onload=x>", 0.03, 1, 1.7)
    config = tmp_path / "<b onload=x>" / "config.toml"
    config.write_text(config.read_text().replace('path = ""', 'path = "<script>alert(1)</script>"'))
    text = build_comparison(tmp_path, "a").read_text()
    assert "<script>" not in text
    assert "<b onload" not in text
    assert "&lt;b onload=x&gt;" in text


def test_what_cannot_be_compared_is_refused(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither a run in"):
        load_runs(runs, "nothing")
    with pytest.raises(InputError, match="no such folder"):
        load_runs(tmp_path / "absent", "a1")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="0 run folders"):
        load_runs(tmp_path / "empty", "a1")


def test_the_command(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "page.html"
    assert main(["report", str(runs), "--compare", "a1", "--json", "-o", str(out)]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["report"] == str(out)
    assert out.exists()
    assert found["variants"][0]["label"] == "matrix_lr 0.03"
    assert main(["report", str(runs), "--compare", "a1"]) == 0
    assert capsys.readouterr().out.strip() == str(runs / "compare.html")
    assert main(["report", str(runs / "a1"), "-o", str(out)]) == 2
