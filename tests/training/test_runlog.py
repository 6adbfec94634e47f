"""The records of a run: exact lines, torn files, resuming."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from golfcore.errors import FormatError, InputError
from golfcore.training.runlog import (
    RunLog,
    final_line,
    peak_memory,
    read_ledger,
    read_metrics,
    size_lines,
    stopping_early,
    train_line,
    val_line,
)


def test_lines_are_the_contests_own() -> None:
    assert train_line(200, 20000, 2.34561, 8712) == (
        "step:200/20000 train_loss:2.3456 train_time:8712ms step_avg:43.56ms"
    )
    assert val_line(1000, 20000, 2.20712, 1.30718, 43560) == (
        "step:1000/20000 val_loss:2.2071 val_bpb:1.3072 train_time:43560ms step_avg:43.56ms"
    )
    assert val_line(0, 20000, 6.9, 4.1, 0.0).endswith("train_time:0ms step_avg:0.00ms")
    assert stopping_early(13780, 20000, 599981.0) == (
        "stopping_early: wallclock_cap train_time:599981ms step:13780/20000"
    )
    assert peak_memory(10184 * 2**20, 10200 * 2**20) == "peak memory allocated: 10184 MiB reserved: 10200 MiB"
    assert size_lines(47642, 15863489, "int8+zlib") == (
        "Code size: 47642 bytes",
        "Total submission size int8+zlib: 15863489 bytes",
    )
    assert final_line(2.072699312, 1.224365704, "int8_zlib") == (
        "final_int8_zlib_roundtrip_exact val_loss:2.07269931 val_bpb:1.22436570"
    )


def record_steps(log: RunLog, steps: range, scale: float = 1.0) -> None:
    for step in steps:
        log.train(step, 100, loss=scale * 5 / step, train_s=step / 10, tokens=64 * step, lr_mult=1.0, step_ms=100.0)
        if step % 10 == 0:
            log.val(step, 100, loss=scale * 5 / step, bpb=scale / step, train_s=step / 10)


def test_a_run_leaves_its_records(tmp_path: Path) -> None:
    echoed: list[str] = []
    with RunLog(tmp_path / "new" / "run", primary=True, echo=echoed.append) as log:
        record_steps(log, range(1, 21))
        log.line("a note")
    run = log.run_dir
    assert (run / "log.txt").read_text().splitlines() == echoed
    assert echoed[-1] == "a note"
    rows = read_metrics(run / "metrics.jsonl")
    assert [row["step"] for row in rows if row["kind"] == "train"] == list(range(1, 21))
    assert rows[0] == {
        "kind": "train", "step": 1, "train_loss": 5.0, "train_s": 0.1, "tokens": 64, "lr_mult": 1.0, "step_ms": 100.0,
    }  # fmt: skip
    assert rows[-1] == {"kind": "val", "step": 20, "val_loss": 0.25, "val_bpb": 0.05, "train_s": 2.0}
    env = json.loads((run / "env.json").read_text())
    assert {"golfcore", "commit", "python", "torch", "cpu", "cores", "isa", "cuda", "platform", "started"} <= set(env)


def test_rows_are_on_disk_at_once(tmp_path: Path) -> None:
    with RunLog(tmp_path, primary=True) as log:
        record_steps(log, range(1, 2))
        assert len(read_metrics(tmp_path / "metrics.jsonl")) == 1


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    echoed: list[str] = []
    with RunLog(tmp_path / "run", primary=False, echo=echoed.append) as log:
        record_steps(log, range(1, 11))
        with log.phase("train", 1.0) as phase:
            pass
    assert phase.complete
    assert not (tmp_path / "run").exists()
    assert echoed == []


def test_a_diverged_loss_is_null(tmp_path: Path) -> None:
    with RunLog(tmp_path, primary=True) as log:
        log.train(1, 2, loss=float("nan"), train_s=1.0, tokens=1, lr_mult=1.0, step_ms=1.0)
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()
    assert read_metrics(tmp_path / "metrics.jsonl")[0]["train_loss"] is None
    assert "train_loss:nan" in (tmp_path / "log.txt").read_text()


@pytest.mark.parametrize("cut", [1, 5, 60])
def test_a_torn_last_line_is_left_out(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "metrics.jsonl"
    with RunLog(tmp_path, primary=True) as log:
        record_steps(log, range(1, 6))
    path.write_bytes(path.read_bytes()[:-cut])
    whole = read_metrics(path)
    assert [row["step"] for row in whole] in ([1, 2, 3, 4], [1, 2, 3, 4, 5])
    with RunLog(tmp_path, primary=True, resume_step=4) as log:
        record_steps(log, range(5, 7))
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("line", ["{", "[]", "3", '{"kind": "train"}', '{"kind": "x", "step": 1}', "[" * 100_000])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"kind": "val", "step": 1}}\n{line}\n')
    with pytest.raises(FormatError, match="line 2"):
        read_metrics(path)


def test_a_resumed_run_tells_no_step_twice(tmp_path: Path) -> None:
    with RunLog(tmp_path, primary=True) as log:
        record_steps(log, range(1, 31))
    started = json.loads((tmp_path / "env.json").read_text())["started"]
    with RunLog(tmp_path, primary=True, resume_step=20) as log:
        record_steps(log, range(21, 41), scale=0.5)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows if row["kind"] == "train"] == list(range(1, 41))
    assert [row["step"] for row in rows if row["kind"] == "val"] == [10, 20, 30, 40]
    assert next(row for row in rows if row["step"] == 21)["train_loss"] == 0.5 * 5 / 21
    assert "resumed step:20" in (tmp_path / "log.txt").read_text().splitlines()
    env = json.loads((tmp_path / "env.json").read_text())
    assert env["started"] == started
    assert env["resumed"] >= started


def phases(run: Path) -> list[dict[str, Any]]:
    return read_ledger(run / "ledger.json")


def test_phases_are_timed_and_budgeted(tmp_path: Path) -> None:
    with RunLog(tmp_path, primary=True) as log:
        with log.phase("set-up"):
            assert phases(tmp_path) == [{"phase": "set-up", "seconds": 0.0, "budget_s": None, "complete": False}]
        with log.phase("train", 120.0) as phase:
            phase.seconds = 119.8
    first, second = phases(tmp_path)
    assert first["complete"]
    assert 0 < first["seconds"] < 60
    assert second == {"phase": "train", "seconds": 119.8, "budget_s": 120.0, "complete": True}


def test_a_phase_that_fails_is_kept_as_incomplete(tmp_path: Path) -> None:
    with RunLog(tmp_path, primary=True) as log, pytest.raises(KeyboardInterrupt), log.phase("train", 120.0) as phase:
        phase.seconds = 30.0
        raise KeyboardInterrupt
    assert phases(tmp_path) == [{"phase": "train", "seconds": 30.0, "budget_s": 120.0, "complete": False}]
    with RunLog(tmp_path, primary=True, resume_step=0) as log, log.phase("train", 120.0):
        pass
    (row,) = phases(tmp_path)
    assert row["complete"]
    assert 30.0 < row["seconds"] < 90.0


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "{}",
        "[3]",
        '[{"phase": "train"}]',
        '[{"phase": "x", "seconds": "long"}]',
        '[{"phase": "x", "seconds": NaN}]',
    ],
)
def test_a_damaged_ledger_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "ledger.json").write_text(text)
    with pytest.raises(FormatError, match=r"ledger\.json"):
        phases(tmp_path)


def test_a_folder_that_cannot_be_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        RunLog(tmp_path / "file" / "run", primary=True)


def test_records_need_no_torch() -> None:
    code = "import sys, golfcore.training.runlog, golfcore.contest.logs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
