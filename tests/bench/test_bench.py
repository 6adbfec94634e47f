"""The harness, its files and its two commands; no test here depends on how fast anything is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from golfcore.bench import harness, store, workloads
from golfcore.bench.harness import Ceilings, Row, Workload
from golfcore.cli import main
from golfcore.errors import FormatError, InputError, RuleError, UsageError
from golfcore.ops import cases as op_cases
from golfcore.ops import check
from golfcore.ops.cases import activation
from golfcore.ops.memory import peak_bytes

CEILINGS = Ceilings(bandwidth=1e10, gemm={"float32": 1e11, "bfloat16": 4e11})
ROW = Row(
    case="norm/x", dtype="float32", shape="8x8", backend="golfcore", p20_us=9.0, p50_us=10.0, p80_us=12.0,
    peak_bytes=1000, gb_s=1.5, gflop_s=None, ceiling="memory", fraction=0.5, ratio=1.0, rounds=11,
)  # fmt: skip
HEADER = dict.fromkeys(store.ABOUT, "x")


def workload(contenders: dict[str, Callable[[int], object]], **more: Any) -> Workload:
    made = {"case": "c", "dtype": "float32", "shape": "s", "check": lambda: None, "contenders": contenders, **more}
    return Workload(**made)


def test_rounds_rotate_sets_and_contenders() -> None:
    calls: list[tuple[str, int]] = []
    contenders = {name: (lambda i, name=name: calls.append((name, i))) for name in ("golfcore", "torch")}
    rows = harness.run(workload(contenders, sets=3), CEILINGS, 1e-9, min_rounds=4)
    timed = calls[-8:]
    assert timed == [
        ("golfcore", 0), ("torch", 0), ("torch", 1), ("golfcore", 1),
        ("golfcore", 2), ("torch", 2), ("torch", 0), ("golfcore", 0),
    ]  # fmt: skip
    assert [row.rounds for row in rows] == [4, 4]
    assert rows[0].ratio == 1.0


def test_nothing_is_timed_before_the_check_passes() -> None:
    def check() -> None:
        raise RuleError("torch is wrong")

    calls: list[int] = []
    with pytest.raises(RuleError, match="torch is wrong"):
        harness.run(workload({"golfcore": calls.append}, check=check), CEILINGS, 0.1)
    assert not calls


def test_the_ceiling_is_the_slower_of_memory_and_products() -> None:
    work = workload({}, touched=1e7, flops=1e9)
    assert CEILINGS.seconds(work) == (0.01, "gemm")
    assert CEILINGS.seconds(replace(work, dtype="bfloat16")) == (0.0025, "gemm")
    assert CEILINGS.seconds(replace(work, flops=1e7)) == (0.001, "memory")
    assert CEILINGS.seconds(replace(work, touched=0.0, flops=0.0)) == (0.0, "")


def test_ceilings_are_measured() -> None:
    found = harness.measure_ceilings(0.01)
    assert found.bandwidth > 1e8
    assert set(found.gemm) == {"float32", "bfloat16"}
    assert min(found.gemm.values()) > 1e8


def test_percentile() -> None:
    assert [harness.percentile([4.0, 1.0, 3.0, 2.0, 5.0], share) for share in (0.0, 0.2, 0.5, 1.0)] == [1, 1.8, 3, 5]
    assert harness.percentile([7.0], 0.8) == 7.0


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is read from Linux's /proc")
def test_peak_counts_what_is_allocated_and_freed() -> None:
    size = 64 << 20
    found = peak_bytes(lambda: torch.ones(size // 4).sum().item())
    assert found is not None
    assert 0.98 * size <= found < 1.5 * size


def test_wrong_results_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    case = next(c for c in op_cases.OP_CASES if c.id == "activation/relu2-ragged")
    wrong = replace(case, call=lambda u, slope: activation.plain(u, slope) + 0.01)
    with pytest.raises(
        RuleError, match=r"activation/relu2-ragged torch\.float32: golfcore is wrong, and was not timed"
    ):
        harness.run(workloads.of_case(wrong, torch.float32, ()), CEILINGS, 0.01)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("qk", {"qk/pocket-h32", "qk/pocket-h64"}),
        ("norm/all-pocket", {"norm/all-pocket"}),
        ("*/relu2*", {"activation/relu2-pocket"}),
    ],
)
def test_selection(pattern: str, expected: set[str]) -> None:
    assert {work.case for work in workloads.select(pattern, ())} == expected


def test_unknown_names_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="no bench case 'nrom'; did you mean 'norm'"):
        workloads.select("nrom", ())
    with pytest.raises(UsageError, match="--vs trch: expected some of torch, compile"):
        workloads.parse_rivals("compile,trch")
    with pytest.raises(UsageError, match="expected a plain name"):
        store.path_of(Path("results"), "../escape")
    assert workloads.parse_rivals("") == ()
    assert workloads.parse_rivals("torch, compile,torch") == ("torch", "compile")


def test_saved_rows_come_back_and_accumulate(tmp_path: Path) -> None:
    path = store.path_of(tmp_path / "new", "run.1")
    store.save(path, HEADER, [ROW])
    store.save(path, HEADER, [replace(ROW, p50_us=20.0), replace(ROW, backend="torch", peak_bytes=None)])
    rows = store.read(path)
    assert [(r["backend"], r["p50_us"], r["peak_bytes"]) for r in rows] == [
        ("golfcore", "10.0", "1000"), ("golfcore", "20.0", "1000"), ("torch", "10.0", ""),
    ]  # fmt: skip


def test_comparison_takes_the_last_saved_row_and_asks_for_separate_ranges(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    store.save(path, HEADER, [replace(ROW, p50_us=99.0), ROW])

    def verdict(p20: float, p50: float, p80: float) -> tuple[float, str]:
        (change,) = store.compare(store.read(path), [replace(ROW, p20_us=p20, p50_us=p50, p80_us=p80)])
        return change.speedup, change.verdict

    assert verdict(4, 5, 8) == (2.0, "faster")
    assert verdict(4, 5, 9.5) == (2.0, "same")
    assert verdict(13, 20, 30) == (0.5, "slower")
    assert store.compare(store.read(path), [replace(ROW, backend="torch")]) == []


def test_bad_result_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="save a run first with --save gone"):
        store.read(tmp_path / "gone.csv")
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    for attempt in (lambda: store.read(other), lambda: store.save(other, HEADER, [ROW])):
        with pytest.raises(FormatError, match="not those of a bench result"):
            attempt()
    assert other.read_text() == "a,b\n1,2\n"
    broken = tmp_path / "broken.csv"
    store.save(broken, HEADER, [ROW])
    broken.write_text(broken.read_text().replace("9.0,10.0", "9.0,soon"))
    with pytest.raises(FormatError, match="a saved time is not a number"):
        store.compare(store.read(broken), [ROW])


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """One small case, so that the whole command runs in a moment."""
    case = next(c for c in op_cases.OP_CASES if c.id == "activation/relu2-ragged")
    monkeypatch.setattr(workloads, "OP_CASES", (replace(case, bench=True, shape="257x333"),))
    monkeypatch.setattr(harness, "measure_ceilings", lambda **_: CEILINGS)
    monkeypatch.setattr("golfcore.ops.memory.keep_freed_memory", lambda: True)  # for the rest of the process


@pytest.mark.usefixtures("small")
def test_bench_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["bench", "--vs", "torch,reference", "--seconds", "0.01", "--results", str(tmp_path)]
    assert main([*base, "activation", "--save", "a", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["machine"]["gemm_gflop_s"] == "float32 100 bfloat16 400"
    rows = document["rows"]
    assert [(r["dtype"], r["backend"]) for r in rows] == [
        (dtype, name) for dtype in ("float32", "bfloat16") for name in ("golfcore", "torch", "reference")
    ]
    assert all(0 < r["p20_us"] <= r["p50_us"] <= r["p80_us"] for r in rows)
    assert all(r["ceiling"] == "memory" and r["fraction"] > 0 for r in rows)
    assert main([*base, "activation", "--compare", "a"]) == 0
    shown = capsys.readouterr().out
    assert "activation/relu2-ragged" in shown
    assert "against a" in shown
    assert main([*base, "--compare", "missing"]) == 1
    assert main([*base, "nothing"]) == 2
    assert main([*base, "--seconds", "0"]) == 2


@pytest.mark.usefixtures("small")
def test_a_failed_check_keeps_the_rows_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = check.parity

    def wrong_in_bf16(case: op_cases.Case, dtype: torch.dtype, function: Any, device: str) -> list[check.Finding]:
        found = genuine(case, dtype, function, device)
        return [replace(f, ours=1e9) for f in found] if dtype == torch.bfloat16 else found

    monkeypatch.setattr(check, "parity", wrong_in_bf16)
    arguments = ["--vs", "", "--seconds", "0.01", "--results", str(tmp_path), "--save", "a"]
    assert main(["bench", "activation", *arguments]) == 1
    assert [row["dtype"] for row in store.read(tmp_path / "a.csv")] == ["float32"]


def test_kernels_commands(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["kernels", "list", "--json"]) == 0
    listed = {row["op"]: row for row in json.loads(capsys.readouterr().out)}
    assert listed["norm"]["leaves"] == ["norm", "norm_mix", "norm_backward"]
    tiny = [c for c in op_cases.OP_CASES if c.id.startswith("activation") and c.gradcheck]
    monkeypatch.setattr("golfcore.ops.inventory.OP_CASES", tuple(tiny))
    assert main(["kernels", "test", "activation", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["ok"]
    assert {row["level"] for row in document["rows"]} == set(listed["activation"]["levels"])
    assert all(row["checked"] == 2 * 2 * len(tiny) for row in document["rows"])
    wrong = replace(tiny[0], call=lambda u, slope: activation.plain(u, slope) * 1.01)
    monkeypatch.setattr("golfcore.ops.inventory.OP_CASES", (wrong,))
    assert main(["kernels", "test", "activation"]) == 1
    assert "result 0: off by" in capsys.readouterr().out
    assert main(["kernels", "test", "activatoin"]) == 2


def test_help_needs_no_torch() -> None:
    code = "import sys; from golfcore.cli import main; main(['bench', '--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0
