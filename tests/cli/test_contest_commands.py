"""``golfcore check`` and ``golfcore stats`` as a user types them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from golfcore.cli import main

sys.path.insert(0, str(Path(__file__).parent.parent / "contest"))

from breaking import BREAKING
from entries import log, write_entry
from programs import script


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_entry(tmp_path, {"train_gpt.py": script(BREAKING[0])})


def test_a_table_with_lines_and_a_verdict(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(folder)]) == 1
    shown = capsys.readouterr().out
    assert "LIKELY" in shown and "opt.step()" in shown and "Verdict: likely-invalid" in shown
    assert "Not checked:" in shown and "To do:" in shown
    assert "\x1b" not in shown and "cheat" not in shown.lower()


def test_json_has_the_fields_of_a_triage(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(folder), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    wanted = {"pr", "folder", "track", "claimed", "recomputed", "flags", "verdict", "lineage", "stats", "not_checked"}
    assert wanted <= set(report)
    flag = next(flag for flag in report["flags"] if flag["rule"] == "I1")
    assert {"rule", "severity", "confidence", "kind", "file", "line", "lines", "explanation", "fix"} == set(flag)
    assert flag["severity"] == "LIKELY" and flag["kind"] == "static" and flag["file"] == "train_gpt.py"


def test_a_comment_and_sarif(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["check", str(folder), "--markdown"])
    comment = capsys.readouterr().out
    assert comment.startswith("**Verdict: likely-invalid.**") and "```" in comment and "Not checked:" in comment
    main(["check", str(folder), "--sarif"])
    sarif = json.loads(capsys.readouterr().out)
    assert sarif["version"] == "2.1.0"
    run = sarif["runs"][0]
    result = next(result for result in run["results"] if result["ruleId"] == "I1")
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "train_gpt.py" and place["region"]["startLine"] > 1
    assert {rule["id"] for rule in run["tool"]["driver"]["rules"]} >= {result["ruleId"] for result in run["results"]}


def test_a_rule_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--explain", "i7"]) == 0
    shown = capsys.readouterr().out
    assert "Why:" in shown and "Breaks the rule:" in shown and "Its honest twin:" in shown
    assert main(["check", "--explain", "R1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["severity"] == "BLOCK"


def test_other_rules(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(folder), "--rules", "pocket", "--json"]) == 1
    assert any(flag["rule"] == "I16" for flag in json.loads(capsys.readouterr().out)["flags"])


@pytest.mark.parametrize(
    "words",
    [["check"], ["check", ".", "--json", "--sarif"], ["check", "--explain", "Z9"], ["check", ".", "--rules", "none"]],
)
def test_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("golfcore: ")


def test_stats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = []
    for seed, bpb in ((42, 1.2001), (314, 1.2004), (1337, 1.1998), (1, 1.2101), (2, 1.2104), (3, 1.2098)):
        paths.append(str(tmp_path / f"train_seed{seed}.log"))
        Path(paths[-1]).write_text(log(seed, bpb))
    words = ["stats", "--runs", *paths[:3], "--vs", *paths[3:]]
    assert main([*words, "--policy", "record"]) == 0
    shown = capsys.readouterr().out
    assert "record" in shown and "progression" in shown and "95 % interval" in shown
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["gain"] == pytest.approx(0.01 * 2.436 * 0.6931, rel=1e-3) and found["p"] < 1e-4
    assert [item["passes"] for item in found["policies"]] == [True, True]
    assert main(["stats", "--runs", *paths[3:], "--vs", *paths[:3], "--policy", "record"]) == 1
    assert "no number" in capsys.readouterr().out
    assert main(["stats", "--runs", "100", "101", "--vs", "103", "104", "--of", "step_ms", "--design", "paired"]) == 0
    assert "policy" not in capsys.readouterr().out


def test_stats_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (1, 2):
        (tmp_path / f"train_seed{seed}.log").write_text(log(1, 1.2))
    assert main(["stats", "--runs", *(str(tmp_path / f"train_seed{i}.log") for i in (1, 2)), "--vs", "2.1"]) == 1
    assert "one run under two seeds" in capsys.readouterr().err
    assert main(["stats", "--runs", "2.0", "2.1", "--vs", "2.2", "--policy", "recrd"]) == 2
    assert "did you mean 'record'" in capsys.readouterr().err
