"""Comparisons of runs, against scipy where it is installed, and the policies of the contest."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from entries import log, write_entry

from golfcore.contest.ruleset import Policy, load_rules
from golfcore.contest.runs import read_values
from golfcore.contest.significance import compare, passes, seeds_needed, student_quantile, student_tail
from golfcore.errors import InputError

RECORD = Policy(name="record", text="", floor_nats=0.005, p=0.01)
ANY = Policy(name="progression", text="", floor_nats=0.0, p=0.25)


@pytest.mark.parametrize("freedom", [1.0, 2.0, 3.3, 10.0, 250.0])
@pytest.mark.parametrize("t", [-4.0, -0.3, 0.0, 0.7, 2.5, 30.0])
def test_student_is_scipys(t: float, freedom: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    assert student_tail(t, freedom) == pytest.approx(stats.t.sf(t, freedom), rel=1e-8, abs=1e-14)
    share = 1 - student_tail(t, freedom)
    if 1e-6 < share < 1 - 1e-6:
        assert student_quantile(share, freedom) == pytest.approx(t, rel=1e-6, abs=1e-6)


def test_student_by_hand() -> None:
    assert student_tail(1.0, 1.0) == pytest.approx(0.25)  # the Cauchy distribution
    assert student_quantile(0.975, 10.0) == pytest.approx(2.228, abs=1e-3)
    assert student_tail(0.0, 5.0) == 0.5


def test_welch_is_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    a, b = [2.331, 2.334, 2.329], [2.342, 2.339, 2.345, 2.341]
    found = compare(a, b)
    oracle = stats.ttest_ind(a, b, equal_var=False, alternative="less")
    assert found.p() == pytest.approx(oracle.pvalue)
    assert found.freedom == pytest.approx(oracle.df)
    low, high = stats.ttest_ind(b, a, equal_var=False).confidence_interval(0.95)
    assert found.interval() == pytest.approx((low, high))


def test_one_number_is_exact() -> None:
    stats = pytest.importorskip("scipy.stats")
    a = [2.331, 2.334, 2.329]
    assert compare(a, [2.34]).p() == pytest.approx(stats.ttest_1samp(a, 2.34, alternative="less").pvalue)


def test_policies_differ() -> None:
    better = compare([2.320, 2.3202, 2.3198], [2.3305, 2.3300, 2.3310])
    assert passes(better, RECORD) and passes(better, ANY)
    slightly = compare([2.327, 2.3275, 2.3265], [2.3300, 2.3290, 2.3310])
    assert not passes(slightly, RECORD) and passes(slightly, ANY)  # over no floor of 0.005
    worse = compare([2.34, 2.341], [2.33, 2.331])
    assert not passes(worse, RECORD) and not passes(worse, ANY) and seeds_needed(worse, ANY) is None


def test_seeds_needed_would_do() -> None:
    """With as many runs of the same spread and gain, the policy is met."""
    found = compare([2.3215, 2.3245, 2.3185], [2.3300])
    needed = seeds_needed(found, RECORD)
    assert needed is not None and needed > 3
    spread = 0.003 * math.sqrt((needed - 1) / needed)
    many = [2.3215 + spread * (1 if i % 2 else -1) for i in range(needed)]
    assert passes(compare(many, [2.3300]), RECORD)
    assert not passes(found, RECORD)


def test_designs_cancel_what_they_should() -> None:
    drift = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    order = "ABBAABBA"
    times = [
        100.0 + 10 * d - (1.0 if who == "A" else 0.0) + 0.01 * (i % 3)
        for i, (d, who) in enumerate(zip(drift, order, strict=True))
    ]
    a = [t for t, who in zip(times, order, strict=True) if who == "A"]
    b = [t for t, who in zip(times, order, strict=True) if who == "B"]
    assert compare(a, b, "abba").p() < 0.01
    assert compare(a, b).p() > 0.05
    paired = compare([1.0, 2.0, 3.0], [1.1, 2.1, 3.11], "paired")
    assert paired.p() < 0.01 and paired.gain == pytest.approx(0.1033, abs=1e-3)


@pytest.mark.parametrize(
    ("runs", "others", "design", "match"),
    [
        ([1.0], [2.0, 3.0], "welch", "1 run"), ([1.0, 2.0], [], "welch", "nothing to compare"),
        ([1.0, 2.0], [1.0], "paired", "as many of both"), ([1.0], [1.0], "paired", "at least 2"),
        ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], "abba", "even number"), ([1.0, 2.0], [1.0, 2.0], "abba", "at least 2"),
    ],
)  # fmt: skip
def test_too_little_is_an_error(runs: list[float], others: list[float], design: str, match: str) -> None:
    with pytest.raises(InputError, match=match):
        compare(runs, others, design)


def test_values_from_logs_entries_and_runs(tmp_path: Path) -> None:
    rules = load_rules()
    one = tmp_path / "train_seed1.log"
    one.write_text(log(1, 1.2))
    assert [v.value for v in read_values([str(one)], "loss", rules)] == [pytest.approx(1.2 * 2.436 * math.log(2))]
    assert read_values([str(one)], "step_ms", rules)[0].value == 43.6
    assert read_values([str(one)], "train_s", rules)[0].value == 599.9
    entry = write_entry(tmp_path / "entry")
    assert [v.seed for v in read_values([str(entry)], "loss", rules)] == [1337, 314, 42]
    run = tmp_path / "runs" / "a"
    run.mkdir(parents=True)
    (run / "score.json").write_text(json.dumps({"val_loss": 2.5}))
    assert read_values([str(run), "2.25"], "loss", rules)[1].value == 2.25
    bpb = tmp_path / "train_seed2.log"
    bpb.write_text("final_x val_bpb:1.2\n")
    assert read_values([str(bpb)], "loss", rules, 3.727)[0].value == pytest.approx(1.2 * 3.727 * math.log(2))
    with pytest.raises(InputError, match="--bytes-per-token"):
        read_values([str(bpb)], "loss", rules)
    for word, match in (("absent.log", "no log"), ("nan", "no finite number"), (str(run), "no eval_s")):
        with pytest.raises(InputError, match=match):
            read_values([word], "eval_s", rules)


def test_copies_are_refused(tmp_path: Path) -> None:
    rules = load_rules()
    for name, text in (
        ("train_seed1.log", log(1, 1.2)),
        ("train_seed2.log", log(1, 1.2)),
        ("train_seed3.log", log(3, 1.2)),
    ):
        (tmp_path / name).write_text(text)
    paths = [str(tmp_path / f"train_seed{i}.log") for i in (1, 2, 3)]
    with pytest.raises(InputError, match="one run under two seeds"):
        read_values(paths[:2], "loss", rules)
    with pytest.raises(InputError, match="under two seeds"):
        read_values([paths[0], paths[2]], "loss", rules)
    assert len(read_values([paths[0], paths[2]], "step_ms", rules)) == 2
