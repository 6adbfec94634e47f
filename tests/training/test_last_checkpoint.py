"""The last checkpoint is all that a training leaves: it is kept, however full the disk is, and the terminal says so."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
import torch
from ranked_training import ALONE, Run, make_recipe, write_tokens

from golfcore.errors import MachineError
from golfcore.run_folder import CHECKPOINT, LOG
from golfcore.training import checkpoint, saving
from golfcore.training.checkpoint import load_checkpoint, save_checkpoint
from golfcore.training.runlog import RunLog
from golfcore.training.saving import save_at_last


def state(step: int) -> dict[str, Any]:
    return {"step": step, "final": True, "weights": {"w": torch.full((1000,), float(step))}}


class Disk:
    """Stands in for disks: ``full(path)`` says whether a file that is written there finds no room."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int = errno.ENOSPC) -> None:
        self.full: Callable[[Path], bool] = lambda path: False
        self.tries: list[Path] = []
        real = os.fsync

        def fsync(fd: int) -> None:
            path = Path(f"/proc/self/fd/{fd}").readlink()
            self.tries.append(path)
            if self.full(path):
                raise OSError(number, os.strerror(number))
            real(fd)

        monkeypatch.setattr(os, "fsync", fsync)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "my run"
    folder.mkdir()
    for step in (1, 2):
        save_checkpoint(folder, state(step))
    return folder


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files; nobody waits long here."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(saving, "RETRY_S", 0.01)
    monkeypatch.setattr(saving, "ROOM_S", 0.05)
    monkeypatch.setattr(saving, "LAST_ROOM_S", 0.1)
    return folder


def test_the_previous_checkpoint_makes_room(
    run_dir: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = checkpoint.atomic_write

    @contextmanager
    def room_for_two(path: Path) -> Iterator[IO[Any]]:
        with real(path) as f:
            if len({path.stat().st_ino for path in run_dir.glob("*.pt")}) == 2:
                raise OSError(errno.ENOSPC, "No space left on device")
            yield f

    monkeypatch.setattr(checkpoint, "atomic_write", room_for_two)
    with RunLog(run_dir, primary=True) as log:
        save_at_last(log, state(3))
    assert load_checkpoint(run_dir / CHECKPOINT)["step"] == 3
    assert "was removed to make room" in capsys.readouterr().err
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_the_weights_are_kept_elsewhere_and_the_message_brings_them_back(
    run_dir: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    with RunLog(run_dir, primary=True) as log:
        disk = Disk(monkeypatch, number)
        disk.full = lambda path: run_dir in path.parents
        with pytest.raises(MachineError, match="go on with: mv ") as caught:
            save_at_last(log, state(3))
    assert load_checkpoint(run_dir / CHECKPOINT)["step"] == 2  # whole, as it was
    (kept,) = temporary.glob("*/" + CHECKPOINT)
    assert load_checkpoint(kept)["step"] == 3
    told = capsys.readouterr().err
    assert f"the trained weights are in {kept}" in told
    assert "make room within" in told
    assert str(kept) in (run_dir / LOG).read_text()
    move, resume = str(caught.value).partition("go on with: ")[2].split(" && ")
    subprocess.run(shlex.split(move), check=True)
    assert load_checkpoint(run_dir / CHECKPOINT)["step"] == 3
    assert shlex.split(resume) == ["golfcore", "run", "--resume", str(run_dir)]


def test_room_that_is_made_meanwhile_is_used(run_dir: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "ROOM_S", 60.0)
    with RunLog(run_dir, primary=True) as log:
        disk = Disk(monkeypatch)
        disk.full = lambda path: run_dir in path.parents and len(disk.tries) < 6
        save_at_last(log, state(3))
    assert load_checkpoint(run_dir / CHECKPOINT)["step"] == 3
    assert not list(temporary.iterdir())
    assert "there is room again" in (run_dir / LOG).read_text()


def test_without_room_anywhere_it_goes_on_trying(
    run_dir: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunLog(run_dir, primary=True) as log:
        disk = Disk(monkeypatch)
        disk.full = lambda path: True
        with pytest.raises(MachineError, match="no room for the trained weights anywhere"):
            save_at_last(log, state(3))
        assert len(disk.tries) >= 4  # at once, without the checkpoint before, elsewhere, and again
        disk.tries.clear()
        monkeypatch.setattr(saving, "LAST_ROOM_S", 60.0)
        disk.full = lambda path: len(disk.tries) < 8
        save_at_last(log, state(3))
    assert load_checkpoint(run_dir / CHECKPOINT)["step"] == 3
    assert not list(temporary.iterdir())


def test_a_limit_of_the_process_is_not_waited_for(
    run_dir: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "ROOM_S", 1e6)
    monkeypatch.setattr(saving, "LAST_ROOM_S", 1e6)
    with RunLog(run_dir, primary=True) as log:
        Disk(monkeypatch, errno.EFBIG).full = lambda path: True
        with pytest.raises(MachineError):
            save_at_last(log, state(3))


def test_a_run_folder_that_was_removed(run_dir: Path, temporary: Path) -> None:
    with RunLog(run_dir, primary=True) as log:
        shutil.rmtree(run_dir)
        run_dir.write_text("in its place")
        with pytest.raises(MachineError, match="the trained weights are in"):
            save_at_last(log, state(3))
    (kept,) = temporary.glob("*/" + CHECKPOINT)
    assert load_checkpoint(kept)["step"] == 3


def test_checkpoints_that_are_not_written_are_told_on_the_terminal_once(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    run = Run(ALONE, make_recipe(iterations=20, checkpoint_every_s=1e-9), write_tokens(tmp_path / "tokens"), run_dir)
    Disk(monkeypatch).full = lambda path: run_dir in path.parents and CHECKPOINT in path.name
    with run.loader, run.log:
        assert run.trainer.run().step == 20
        with pytest.raises(MachineError, match="the disk is full"):
            run.trainer.save(final=True)
    told = capsys.readouterr().err
    assert told.count("warning: no checkpoint was written: cannot write") == 1
    assert (run_dir / LOG).read_text().count("warning: no checkpoint was written") > 1
    assert [load_checkpoint(path)["step"] for path in temporary.glob("*/" + CHECKPOINT)] == [20]


def test_a_ledger_without_room_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunLog(tmp_path, primary=True) as log:
        disk = Disk(monkeypatch)
        disk.full = lambda path: True
        with log.phase("train"):
            pass
        disk.full = lambda path: False
    assert capsys.readouterr().err.count("the phases are written when there is room") == 1
    lines: list[str] = []
    with RunLog(tmp_path, primary=True, echo=lines.append) as log:
        log.warn("seen")
    assert lines == ["warning: seen"]
    assert capsys.readouterr().err == ""  # it stands among the lines that are shown
