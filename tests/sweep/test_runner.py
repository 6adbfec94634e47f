"""A queue of toy runs: killed at random, adopted, retried, stopped; every run done once and none lost."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from golfcore.errors import FormatError, InputError
from golfcore.sweep.early_stopping import Curve, Rule
from golfcore.sweep.queue import Entry, Queue
from golfcore.sweep.runner import JOURNAL, one_process
from golfcore.sweep.worker import TAKEN, is_running, lock_path

sys.path.insert(0, str(Path(__file__).parent))
from toy_sweep import FAKE, silent, toy_sweep


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def running_pids(folder: Path) -> list[int]:
    names = [path.name.removesuffix(".lock") for path in (folder / "locks").glob("*.lock")]
    return [pid for name in names if (pid := is_running(folder, name))]


def by_name(entries: list[Entry]) -> dict[str, Entry]:
    return {entry.job.name: entry for entry in entries}


def begin(folder: Path, axes: str, seeds: int, slots: int) -> subprocess.Popen[bytes]:
    script = Path(__file__).parent / "toy_sweep.py"
    return subprocess.Popen(
        [sys.executable, str(script), str(folder), axes, str(seeds), str(slots)],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a suite in the background ignores it
    )


def test_every_run_of_a_sweep_is_done_once(tmp_path: Path) -> None:
    entries = toy_sweep(tmp_path, "toy.loss=2.0,3.0;toy.steps=4", 2, 2).run(silent)
    assert [(e.job.variant, e.job.seed, e.state, e.attempts) for e in entries] == [
        ("loss=2.0 steps=4", 0, "done", 1), ("loss=3.0 steps=4", 0, "done", 1),
        ("loss=2.0 steps=4", 1, "done", 1), ("loss=3.0 steps=4", 1, "done", 1),
    ]  # fmt: skip
    assert [e.result["val_bpb"] for e in entries if e.result] == [2.0, 3.0, 2.001, 3.001]
    assert all(Path(e.result["run"]).is_dir() for e in entries if e.result)
    assert len(lines(tmp_path / "started.txt")) == 4


@pytest.mark.parametrize("with_runs", [False, True], ids=["the sweep alone", "its runs too"])
def test_24_runs_killed_at_random_five_times(tmp_path: Path, with_runs: bool) -> None:
    """The long form, with real runs: ``python bench/sweep_kill.py``."""
    rng = random.Random(f"kills {with_runs}")
    kills = 0
    for _ in range(40):
        process = begin(tmp_path, "toy.loss=2,3,4,5,6,7;toy.steps=12", 4, 3)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0.5, 1.4) if kills < 5 else 60)
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        if with_runs:
            for pid in running_pids(tmp_path):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        kills += 1
    assert process.returncode == 0
    assert kills >= 2  # on a slow machine five
    entries = Queue(tmp_path / JOURNAL).entries()
    assert len(entries) == 24
    assert {e.state for e in entries} == {"done"}
    assert {(e.job.variant, e.job.seed) for e in entries} == {
        (f"loss={loss} steps=12", seed) for loss in range(2, 8) for seed in range(4)
    }
    assert not (tmp_path / "overlap.txt").exists()
    assert not (tmp_path / "twice.txt").exists()


def test_a_run_that_outlived_its_sweep_is_adopted_and_not_started_again(tmp_path: Path) -> None:
    process = begin(tmp_path, "toy.steps=150", 1, 1)
    until = time.monotonic() + 30
    while not lines(tmp_path / "started.txt") and time.monotonic() < until:
        time.sleep(0.02)
    process.kill()
    process.wait()
    (pid,) = running_pids(tmp_path)
    (entry,) = toy_sweep(tmp_path, "toy.steps=150", 1, 1).run(silent)
    assert (entry.state, entry.attempts) == ("done", 1)
    assert len(lines(tmp_path / "started.txt")) == 1
    assert pid > 0
    assert running_pids(tmp_path) == []


def test_a_run_that_was_killed_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    (entry,) = toy_sweep(tmp_path, "toy.steps=10;toy.die=7", 1, 1).run(silent)
    assert (entry.state, entry.attempts) == ("done", 2)
    assert [line.split()[1] for line in lines(tmp_path / "started.txt")] == ["0", "5"]


def test_a_run_that_dies_before_its_checkpoint_is_begun_afresh_and_left_at_last(tmp_path: Path) -> None:
    sweep = toy_sweep(tmp_path, "toy.steps=10;toy.die=2", 1, 1)
    (entry,) = sweep.run(silent)
    assert (entry.state, entry.attempts) == ("waiting", 3)
    assert "died 3 times" in sweep.left([entry])
    assert [line.split()[1] for line in lines(tmp_path / "started.txt")] == ["0", "0", "0"]


def test_a_run_that_fails_by_itself_is_not_repeated_and_stops_no_other(tmp_path: Path) -> None:
    entries = toy_sweep(tmp_path, "toy.fail=the model will not fit;toy.loss=2,3", 1, 1).run(silent)
    assert [(e.state, e.attempts, e.note) for e in entries] == [("failed", 1, "the model will not fit")] * 2


def test_a_hopeless_run_is_stopped_and_stays_stopped(tmp_path: Path) -> None:
    share = np.linspace(0.01, 1, 100)
    reference = Curve(share, np.full(100, 2.2))
    rule = Rule(margin=0.2, after=0.3)
    entries = toy_sweep(tmp_path, "toy.loss=2.0,4.0;toy.steps=300", 1, 2, rule=rule, reference=reference).run(silent)
    good, bad = entries
    assert (good.state, bad.state) == ("done", "stopped")
    assert bad.result is not None
    assert 0.3 <= bad.result["share"] < 1
    assert bad.result["lag"] > 0.2
    assert "behind" in bad.note
    assert not (tmp_path / bad.job.name / "score.json").exists()
    again = toy_sweep(tmp_path, "", 1, 2, rule=rule, reference=reference).run(silent)
    assert again == entries
    assert len(lines(tmp_path / "started.txt")) == 2


def test_runs_are_held_against_the_best_that_has_ended(tmp_path: Path) -> None:
    entries = toy_sweep(tmp_path, "toy.loss=2.0,4.0;toy.steps=100", 1, 1, rule=Rule(margin=0.2, after=0.3)).run(silent)
    assert [e.state for e in entries] == ["done", "stopped"]


def test_a_mark_without_its_signal_is_finished_by_the_next_process(tmp_path: Path) -> None:
    process = begin(tmp_path, "toy.steps=2000", 1, 1)
    until = time.monotonic() + 30
    while not lines(tmp_path / "started.txt") and time.monotonic() < until:
        time.sleep(0.02)
    process.kill()
    process.wait()
    (name,) = [path.name for path in tmp_path.iterdir() if (path / "config.toml").exists()]
    (tmp_path / name / "stopped.json").write_text('{"share": 0.4, "lag": 0.1}')
    (entry,) = toy_sweep(tmp_path, "", 1, 1, rule=Rule()).run(silent)
    assert (entry.state, entry.result) == ("stopped", {"share": 0.4, "lag": 0.1})


def test_an_interrupt_ends_the_runs_and_a_later_process_goes_on(tmp_path: Path) -> None:
    process = begin(tmp_path, "toy.steps=100", 2, 2)
    until = time.monotonic() + 30
    while len(lines(tmp_path / "started.txt")) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) != 0
    assert running_pids(tmp_path) == []
    entries = toy_sweep(tmp_path, "", 2, 2).run(silent)
    assert [e.state for e in entries] == ["done", "done"]
    assert not (tmp_path / "overlap.txt").exists()


def test_a_second_process_of_one_sweep_is_refused(tmp_path: Path) -> None:
    with one_process(tmp_path), pytest.raises(InputError, match="another process"), one_process(tmp_path):
        pass


def test_of_two_workers_of_a_job_one_goes_away(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "golfcore.sweep.worker", str(tmp_path), "a", *FAKE]
    command += ["r.toml", "--set", "toy.steps=400", "--set", "train.seed=0", "--runs", str(tmp_path), "--run-id", "a"]
    first = subprocess.Popen(command)
    until = time.monotonic() + 30
    while is_running(tmp_path, "a") is None and time.monotonic() < until:
        time.sleep(0.02)
    assert subprocess.run(command, check=False).returncode == TAKEN
    pid = is_running(tmp_path, "a")
    assert pid
    first.kill()
    first.wait()
    assert is_running(tmp_path, "a") == pid  # the run outlives its worker, and keeps the lock
    os.kill(pid, signal.SIGKILL)
    while is_running(tmp_path, "a") is not None and time.monotonic() < until:
        time.sleep(0.02)
    assert is_running(tmp_path, "a") is None
    assert lock_path(tmp_path, "a").exists()
    assert len(lines(tmp_path / "started.txt")) == 1


def test_runs_share_the_cores(tmp_path: Path) -> None:
    toy_sweep(tmp_path, "toy.steps=2", 2, 2).run(silent)
    threads = {line.split()[2] for line in lines(tmp_path / "started.txt")}
    assert len(threads) == 1
    assert int(threads.pop()) >= 1


def test_the_journal_ends_a_job_once(tmp_path: Path) -> None:
    sweep = toy_sweep(tmp_path, "toy.steps=1", 1, 1)
    queue = sweep.queue
    (entry,) = queue.entries()
    queue.end(entry.id, "done", {"val_bpb": 1.0})  # not running yet
    assert queue.entries()[0].state == "waiting"
    queue.start(entry.id, 0)
    queue.end(entry.id, "done", {"val_bpb": 1.0})
    queue.end(entry.id, "failed", None, "late")
    queue.again(entry.id, "late")
    queue.start(entry.id, 0)
    (entry,) = queue.entries()
    assert (entry.state, entry.result, entry.attempts) == ("done", {"val_bpb": 1.0}, 1)


def test_a_half_written_change_leaves_the_journal_as_it_was(tmp_path: Path) -> None:
    queue = toy_sweep(tmp_path, "toy.loss=1,2", 1, 1).queue
    jobs = [entry.job for entry in queue.entries()]
    with pytest.raises(sqlite3.IntegrityError):
        queue.add([jobs[0]], trial=1)  # a name that is there already
    assert len(Queue(tmp_path / JOURNAL).entries()) == 2


def test_a_file_that_is_no_journal(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_text("not a database, but long enough to be read as one " * 20)
    with pytest.raises(FormatError, match="not a sweep's journal"):
        Queue(tmp_path / JOURNAL)
