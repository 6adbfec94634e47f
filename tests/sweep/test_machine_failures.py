"""Failures of the machine are no failures of a variant: the sweep stops, and the same command goes on afterwards."""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from golfcore.cli import main
from golfcore.config import to_toml, to_tree
from golfcore.errors import (
    MACHINE_CODE,
    DeviceError,
    FormatError,
    InputError,
    MachineError,
    RuleError,
    UsageError,
    exit_code,
)
from golfcore.sweep import launch
from golfcore.sweep.failures import classify
from golfcore.sweep.queue import Entry
from golfcore.sweep.runner import one_process
from golfcore.sweep.worker import RECORD, exit_status, lock_path

sys.path.insert(0, str(Path(__file__).parent))
from tiny import recipe
from toy_sweep import silent, toy_sweep


def states(entries: list[Entry]) -> list[str]:
    return [entry.state for entry in entries]


def started(folder: Path) -> list[str]:
    return [line.split()[0] for line in (folder / "started.txt").read_text().splitlines()]


# --- what is a failure of the machine ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("text"), 1), (UsageError("key"), 2), (RuleError("over the cap"), 1), (FormatError("torn"), 1),
        (MachineError("no room"), MACHINE_CODE), (DeviceError("no GPU"), MACHINE_CODE), (MemoryError(), MACHINE_CODE),
        (FileNotFoundError(errno.ENOENT, "no such file"), 1), (ValueError("odd"), 1),
        *((OSError(number, "trouble"), MACHINE_CODE) for number in (
            errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO,
        )),
    ],
)  # fmt: skip
def test_exit_codes(error: Exception, code: int) -> None:
    assert exit_code(error) == code
    try:
        raise InputError("cannot write runs/a/log.txt") from error
    except InputError as wrapped:
        assert (exit_code(wrapped) == MACHINE_CODE) == (code == MACHINE_CODE)


@pytest.mark.parametrize(
    ("status", "words", "kind"),
    [
        (1, "golfcore: the model will not fit", "variant"),
        (2, "golfcore: unknown key", "variant"),
        (1, "ValueError: odd", "variant"),
        (0, "", "variant"),
        (MACHINE_CODE, "golfcore: cannot write runs/a/log.txt: the disk is full", "machine"),
        (MACHINE_CODE, "", "machine"),  # not even the line could be written
        (127, "golfcore: /nowhere/python cannot be started: No such file or directory", "machine"),
        (126, "", "machine"),
        (1, "RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory", "machine"),
        (1, "OSError: [Errno 28] No space left on device", "machine"),
        (1, "torch.OutOfMemoryError: CUDA out of memory.", "machine"),
        (-signal.SIGKILL, "golfcore: the model will not fit", "killed"),
        (128 + signal.SIGKILL, "", "killed"),
        (-signal.SIGTERM, "", "killed"),
        (1, "golfcore: interrupted; go on with: golfcore run --resume runs/a", "killed"),
        (None, "", "killed"),
        (-signal.SIGSEGV, "", "crash"),
    ],
)
def test_kinds_of_failures(status: int | None, words: str, kind: str) -> None:
    failure = classify(status, words)
    assert failure.kind == kind
    assert failure.why
    assert "\n" not in failure.why


# --- what a sweep does about it ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", ["75", "126", "127"])
def test_a_full_disk_stops_the_sweep_and_the_same_command_goes_on(tmp_path: Path, trouble: str) -> None:
    (tmp_path / "trouble").write_text(f"{trouble} cannot write log.txt: the disk is full")
    sweep = toy_sweep(tmp_path, "toy.loss=1,2,3,4;toy.steps=2", 1, 1)
    entries = sweep.run(silent)
    assert states(entries) == ["waiting"] * 4
    assert len(started(tmp_path)) == 1  # and not one run after the other
    assert "4 of 4 runs are left to do; " in sweep.left(entries)
    assert "the disk is full" in sweep.left(entries)
    (tmp_path / "trouble").unlink()
    again = toy_sweep(tmp_path, "", 1, 1)
    entries = again.run(silent)
    assert states(entries) == ["done"] * 4
    assert again.left(entries) == ""
    assert not any(entry.note for entry in entries)


def test_runs_that_go_on_are_waited_for(tmp_path: Path) -> None:
    sweep = toy_sweep(tmp_path, "toy.loss=1,2,3,4;toy.steps=30;toy.machine=0", 1, 2)
    entries = sweep.queue.entries()
    with sweep.queue._change():  # the second alone meets the trouble
        sweep.queue._db.execute(
            "UPDATE jobs SET sets = replace(sets, 'toy.machine=0', 'toy.machine=75') WHERE id = ?", (entries[1].id,)
        )
    assert states(sweep.run(silent)) == ["done", "waiting", "waiting", "waiting"]


def test_a_run_that_is_killed_again_and_again_holds_up_no_other(tmp_path: Path) -> None:
    sweep = toy_sweep(tmp_path, "toy.loss=1,2,3;toy.steps=4;toy.die=0", 1, 1)
    with sweep.queue._change():
        sweep.queue._db.execute("UPDATE jobs SET sets = replace(sets, 'toy.die=0', 'toy.die=1') WHERE id = 1")
    entries = sweep.run(silent)
    assert states(entries) == ["waiting", "done", "done"]
    assert started(tmp_path).count(entries[0].job.name) == 3
    assert "died 3 times: its process was killed by SIGKILL" in sweep.left(entries)
    assert entries[0].attempts == 3
    assert states(toy_sweep(tmp_path, "", 1, 1).run(silent)) == ["waiting", "done", "done"]  # three times more
    assert started(tmp_path).count(entries[0].job.name) == 6


def test_an_error_of_its_own_is_not_tried_again_unless_asked(tmp_path: Path) -> None:
    sweep = toy_sweep(tmp_path, "toy.fail=the loss is nan at step 3;toy.loss=1,2", 1, 1)
    assert states(sweep.run(silent)) == ["failed", "failed"]
    assert states(toy_sweep(tmp_path, "", 1, 1).run(silent)) == ["failed", "failed"]
    assert len(started(tmp_path)) == 2
    sweep.queue.retry_failed()
    assert states(sweep.queue.entries()) == ["waiting", "waiting"]
    entries = toy_sweep(tmp_path, "", 1, 1).run(silent)
    assert [(entry.state, entry.note) for entry in entries] == [("failed", "the loss is nan at step 3")] * 2
    assert len(started(tmp_path)) == 4


def test_an_interpreter_that_is_gone(tmp_path: Path) -> None:
    sweep = toy_sweep(tmp_path, "toy.loss=1,2", 1, 1)
    sweep.command = [str(tmp_path / "no python"), "run"]
    entries = sweep.run(silent)
    assert states(entries) == ["waiting", "waiting"]
    assert "no python cannot be started: No such file" in sweep.left(entries)


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENOENT])
def test_a_machine_that_starts_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def none(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(launch.subprocess, "Popen", none)
    sweep = toy_sweep(tmp_path, "toy.loss=1,2", 1, 2)
    entries = sweep.run(silent)
    assert states(entries) == ["waiting", "waiting"]
    assert os.strerror(number) in sweep.left(entries)


def test_a_journal_without_room_is_one_line_and_loses_nothing(tmp_path: Path) -> None:
    sweep = toy_sweep(tmp_path, "toy.loss=1,2;toy.steps=2", 1, 1)
    (pages,) = sweep.queue._db.execute("PRAGMA page_count").fetchone()
    sweep.queue._db.execute(f"PRAGMA max_page_count = {pages}")  # SQLite then answers as on a full disk
    note = "n" * 10_000
    with pytest.raises(MachineError, match=r"cannot write the sweep's journal .*full"):
        for entry in sweep.queue.entries():
            sweep.queue.start(entry.id, 0)
            sweep.queue.again(entry.id, note)
    sweep.queue.close()
    assert states(toy_sweep(tmp_path, "", 1, 1).run(silent)) == ["done", "done"]


def test_a_journal_that_cannot_be_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = toy_sweep(tmp_path, "toy.loss=1", 1, 1).queue

    class Broken:
        def execute(self, *_: object) -> None:
            raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(queue, "_db", Broken())
    with pytest.raises(MachineError, match="disk I/O error"):
        queue.entries()


def test_a_sweep_in_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match="cannot write"), one_process(tmp_path / "file" / "s"):
        pass


# --- how a run ended is written though the disk is full ---------------------------------------------------------------


def test_the_lock_has_room_for_how_the_run_ended(tmp_path: Path) -> None:
    entries = toy_sweep(tmp_path, "toy.steps=2;toy.fail=no", 1, 1).run(silent)
    name = entries[0].job.name
    assert exit_status(tmp_path, name) == 1
    assert lock_path(tmp_path, name).stat().st_size == RECORD  # as at its start: the end is written over it
    assert exit_status(tmp_path, "never started") is None


def test_the_command_says_what_was_in_the_way(
    tmp_path: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole way: a real run that finds its disk too small, its exit code, the line of the sweep, and room."""
    monkeypatch.setenv("GOLFCORE_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "tiny.toml"
    path.write_text(to_toml(to_tree(recipe(iterations=2))))
    words = ["sweep", str(path), "--text", str(text_file), "--folder", str(tmp_path / "s")]
    real = launch.worker_command
    small = "import os, runpy, sys; real = os.statvfs; f = list(real('/')); f[4] = 10; os.statvfs = lambda *_: "
    small += "os.statvfs_result(f); sys.argv.pop(0); runpy.run_module('golfcore', run_name='__main__')"

    def full(folder: Path, name: str, command: list[str]) -> list[str]:
        return real(folder, name, [sys.executable, "-P", "-c", small, "golfcore", *command[command.index("run") :]])

    monkeypatch.setattr(launch, "worker_command", full)
    assert main(words) == MACHINE_CODE
    told = capsys.readouterr().err
    (line,) = [line for line in told.splitlines() if line.startswith("golfcore: ")]
    assert "1 of 1 runs are left to do; " in line
    assert "is too small: " in line and "the same command goes on" in line
    monkeypatch.setattr(launch, "worker_command", real)
    assert main(words) == 0
