"""Checkpoints on disk: two at most, whole or passed over, beside the loop; a full disk does not end the training."""

from __future__ import annotations

import errno
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ranked_training import ALONE, Run, losses, make_recipe, write_tokens

from golfcore.errors import FormatError, InputError
from golfcore.run_folder import CHECKPOINT, PREVIOUS_CHECKPOINT
from golfcore.training import runlog, saving
from golfcore.training.checkpoint import CheckpointWriter, load_checkpoint, load_newest, save_checkpoint
from golfcore.training.runlog import RunLog, budget_use, read_metrics


def state(step: int) -> dict[str, Any]:
    return {"step": step, "weights": {"w": torch.full((1000,), float(step))}}


def test_two_are_kept_and_torch_reads_them_as_they_are(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, state(step))
    assert sorted(path.name for path in tmp_path.iterdir()) == [PREVIOUS_CHECKPOINT, CHECKPOINT]
    assert load_checkpoint(tmp_path / CHECKPOINT)["step"] == 3
    assert load_checkpoint(tmp_path / PREVIOUS_CHECKPOINT)["step"] == 2
    assert torch.load(tmp_path / CHECKPOINT, weights_only=True)["step"] == 3


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_one_is_passed_over_for_the_one_before(tmp_path: Path, damage: str) -> None:
    save_checkpoint(tmp_path, state(1))
    save_checkpoint(tmp_path, state(2))
    data = bytearray((tmp_path / CHECKPOINT).read_bytes())
    if damage == "flip":
        data[data.index(torch.full((8,), 2.0).numpy().tobytes())] ^= 1  # inside a weight: only a checksum finds it
    (tmp_path / CHECKPOINT).write_bytes({"flip": data, "cut": data[: len(data) // 2], "empty": b""}[damage])
    with pytest.raises(FormatError, match="damaged" if damage == "flip" else "not a readable checkpoint"):
        load_checkpoint(tmp_path / CHECKPOINT)
    saved, note = load_newest(tmp_path)
    assert saved["step"] == 1
    assert note.endswith(f"going on from {PREVIOUS_CHECKPOINT}")
    (tmp_path / PREVIOUS_CHECKPOINT).unlink()
    with pytest.raises(FormatError):
        load_newest(tmp_path)


def test_what_is_written_is_what_was_handed_in(tmp_path: Path) -> None:
    """The loop goes on and moves the weights while the file is written; shared tensors stay shared."""
    weights = torch.zeros(200_000)
    (tmp_path / f".{CHECKPOINT}.torn.tmp").write_bytes(b"of a process that was killed")
    writer = CheckpointWriter(tmp_path)
    writer.submit({"step": 1, "module": {"w": weights}, "weights": {"w": weights}})
    weights += 1
    writer.wait()
    assert writer.lag_s > 0
    saved = load_checkpoint(tmp_path / CHECKPOINT)
    assert not saved["module"]["w"].any()
    assert saved["module"]["w"].data_ptr() == saved["weights"]["w"].data_ptr()
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "not enough memory"),
        (RuntimeError("can't start new thread"), "no thread or process"),
        (RuntimeError("odd"), "RuntimeError: odd"),
    ],
)
def test_any_error_of_the_writer_is_told_and_ends_nothing(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("golfcore.training.checkpoint.save_checkpoint", fail)
    writer = CheckpointWriter(tmp_path)
    writer.submit({"step": 1})
    writer.wait()
    assert said in writer.failure()
    assert writer.failure() == ""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 96 KB; skips where this user may not mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False, timeout=20)
    except OSError as error:
        pytest.skip(f"no mount command: {error}")
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=20)


def test_a_full_disk_does_not_end_the_training(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "ROOM_S", 0.0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    tokens = write_tokens(tmp_path / "tokens")
    run = Run(ALONE, make_recipe(iterations=20, checkpoint_every_s=1e-9), tokens, small_disk)
    with run.loader, run.log:
        assert run.trainer.run().step == 20
        with pytest.raises(InputError, match="the disk is full"):
            run.trainer.save(final=True)  # that the weights cannot be kept in their place is an error
    assert [load_checkpoint(path)["step"] for path in tmp_path.glob(f"golfcore-small-*/{CHECKPOINT}")] == [20]
    assert list(losses(small_disk)) == list(range(1, 21))
    assert "warning: no checkpoint was written: cannot write" in (small_disk / "log.txt").read_text()


def test_lines_that_find_the_disk_full_follow_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunLog(tmp_path, primary=True) as log:

        class Full:
            room = 10

            def __init__(self, file: Any) -> None:
                self.file = file

            def write(self, data: bytes) -> int:
                if not self.room:
                    raise OSError(errno.ENOSPC, "No space left on device")
                part = bytes(data[: self.room])
                self.room -= len(part)
                return int(self.file.write(part))

            def close(self) -> None:
                self.file.close()

        assert log._metrics is not None
        full = Full(log._metrics._file)
        log._metrics._file = full  # type: ignore[assignment]
        for step in (1, 2, 3):
            log.val(step, 3, loss=1.0, bpb=1.0, train_s=0.0)
        assert (tmp_path / "metrics.jsonl").stat().st_size == 10  # a torn line, whose rest is in memory
        full.room = 10**6
        log.val(4, 4, loss=1.0, bpb=1.0, train_s=0.0)
        assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4]
        full.room = 0
        monkeypatch.setattr(runlog, "MAX_PENDING", 100)
        with pytest.raises(InputError, match="the disk is full"):
            for step in range(5, 10):
                log.val(step, 9, loss=1.0, bpb=1.0, train_s=0.0)


def test_the_ledger_proves_a_run_only_when_it_is_whole() -> None:
    from golfcore.errors import RuleError

    rows = [
        {"phase": name, "seconds": seconds, "complete": True}
        for name, seconds in (("set-up", 9.0), ("train", 100.0), ("evaluate", 7.0))
    ]
    assert budget_use(rows) == (100.0, 7.0)
    with pytest.raises(RuleError, match="no phase 'evaluate'"):
        budget_use(rows[:2])
    rows[1]["complete"] = False
    with pytest.raises(RuleError, match="'train' of the ledger was cut off after 100"):
        budget_use(rows)
