"""Programs that break a rule are found, and honest ones that look like them are not."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from breaking import BREAKING
from early import EARLY
from entries import severe, write_entry
from honest import HONEST
from late import LATE, REVIEWED
from later import MORE
from programs import STYLES, Program, script
from rarer import RARER

from golfcore.contest.check import check_entry


def styled(programs: list[Program]) -> list[tuple[Program, str]]:
    """Each program in one style, so that every rule meets every style."""
    counts: Counter[str] = Counter()
    result = []
    for program in programs:
        key = program.rule or program.near
        result.append((program, list(STYLES)[counts[key] % len(STYLES)]))
        counts[key] += 1
    return result


def named(case: tuple[Program, str]) -> str:
    return f"{case[0].rule or case[0].near}-{case[1]}-{case[0].name.replace(' ', '_')}"


@pytest.mark.parametrize("case", styled(BREAKING), ids=named)
def test_what_breaks_a_rule_is_likely(case: tuple[Program, str], tmp_path: Path) -> None:
    program, style = case
    report = check_entry(write_entry(tmp_path, STYLES[style](program)))
    assert (program.rule, "LIKELY") in severe(report)
    finding = next(f for f in report.findings if f.rule == program.rule and f.severity == "LIKELY")
    assert finding.lines and finding.file.endswith(".py") and finding.line > 0
    assert finding.kind == "static" and 0 < finding.confidence <= 1 and finding.fix.endswith(".")


@pytest.mark.parametrize("case", styled(HONEST), ids=named)
def test_what_is_honest_is_not(case: tuple[Program, str], tmp_path: Path) -> None:
    program, style = case
    assert severe(check_entry(write_entry(tmp_path, STYLES[style](program)))) == set()


@pytest.mark.parametrize(
    "program", [*EARLY, *LATE, *MORE, *RARER], ids=lambda p: f"{p.rule or 'honest'}-{p.name.replace(' ', '_')}"
)
def test_the_styles_of_their_weeks(program: Program, tmp_path: Path) -> None:
    found = severe(check_entry(write_entry(tmp_path, {"train_gpt.py": script(program)})))
    assert (program.rule, "LIKELY") in found if program.rule else found == set()


@pytest.mark.parametrize("program", REVIEWED, ids=lambda p: p.name.replace(" ", "_"))
def test_what_never_got_a_ruling_is_a_question(program: Program, tmp_path: Path) -> None:
    report = check_entry(write_entry(tmp_path, {"train_gpt.py": script(program)}))
    assert severe(report) == set()
    assert any(f.rule == program.rule and f.severity == "REVIEW" for f in report.findings)


def test_there_are_four_of_each_in_every_style() -> None:
    for programs in (BREAKING, HONEST):
        cases = styled(programs)
        rules = {program.rule or program.near for program, _ in cases}
        assert rules == {"I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8", "I10", "I11", "I12", "I15", "I17", "I18"}
        for rule in rules:
            styles = {style for program, style in cases if (program.rule or program.near) == rule}
            assert styles == set(STYLES), rule


def test_a_monolith_is_long() -> None:
    assert STYLES["monolith"](BREAKING[0])["train_gpt.py"].count("\n") >= 1_400


def test_names_do_not_decide(tmp_path: Path) -> None:
    """The words of a technique in comments, strings and names of an honest program are no finding."""
    program = HONEST[0]
    text = script(program).replace("eval_technique", "two_pass_slot_ppm_ngram_cache")
    text = "# pre-quant TTT, last epoch, min NLL over passes, SLOT, byte PPM, hashed n-gram, paid prefix\n" + text
    assert severe(check_entry(write_entry(tmp_path, {"train_gpt.py": text}))) == set()


def test_a_switch_that_is_off_is_a_question(tmp_path: Path) -> None:
    program = next(p for p in BREAKING if p.rule == "I1")
    off = {
        "train_gpt.py": STYLES["switched"](program)["train_gpt.py"].replace(
            '"USE_TECHNIQUE", "1"', '"USE_TECHNIQUE", "0"'
        )
    }
    report = check_entry(write_entry(tmp_path / "off", off))
    assert severe(report) == set()
    assert any(f.rule == "I1" and f.severity == "REVIEW" and "off by default" in f.explanation for f in report.findings)
    on = off | {"run.sh": "USE_TECHNIQUE=1 torchrun --standalone --nproc_per_node=8 train_gpt.py\n"}
    assert ("I1", "LIKELY") in severe(check_entry(write_entry(tmp_path / "on", on)))


def test_a_file_that_nothing_runs_is_a_question(tmp_path: Path) -> None:
    program = next(p for p in BREAKING if p.rule == "I1")
    files = {"experiments/old.py": script(program)}
    report = check_entry(write_entry(tmp_path / "apart", files))
    assert severe(report) == set()
    assert any(f.rule == "I1" and f.severity == "REVIEW" for f in report.findings)
    files = {"eval.py": script(program), "README.md": "# Entry\n\n`torchrun eval.py`\n"}
    assert ("I1", "LIKELY") in severe(check_entry(write_entry(tmp_path / "run", files)))


def test_the_budget_ends_a_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("golfcore.contest.flow.state.MAX_STEPS", 500)
    report = check_entry(write_entry(tmp_path, {"train_gpt.py": script(BREAKING[0])}))
    assert any("budget" in text for text in report.not_checked)
