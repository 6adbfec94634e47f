"""Leftovers of killed processes are found and removed, and what a living process makes or reads is not."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from golfcore.data.cache import cached_prepare
from golfcore.data.hints import prepared_cache
from golfcore.data.leftovers import leftovers, remove, temporary_folder
from golfcore.disk import Lock
from golfcore.errors import InputError
from golfcore.paths import atomic_write, cache_dir
from golfcore.run_folder import CONFIG, owned

MAKING = {
    "a prepared text": """
from golfcore.data.leftovers import temporary_folder
with temporary_folder(here / "prepared" / "0123456789abcdef") as folder:
    (folder / "fineweb_train_000000.bin").write_bytes(bytes(5000))
    wait()
""",
    "a download": """
from golfcore.data.leftovers import temporary_folder
with temporary_folder(here / "text" / "download") as folder:
    (folder / "a.whl").write_bytes(bytes(5000))
    wait()
""",
    "a shard in it": """
from golfcore.data.leftovers import temporary_folder
from golfcore.data.shards import ShardWriter
import numpy as np
with temporary_folder(here / "prepared" / "0123456789abcdef") as folder, ShardWriter(folder, "train") as writer:
    writer.append(np.zeros(5000, np.uint16))
    wait()
""",
    "a file": """
from golfcore.paths import atomic_write
with atomic_write(here / "text" / "news.jsonl") as f:
    f.write(bytes(5000))
    f.flush()
    wait()
""",
    "a checkpoint": """
from golfcore.paths import atomic_write
with atomic_write(here / "runs" / "a" / "checkpoint.pt") as f:
    f.write(bytes(5000))
    f.flush()
    wait()
""",
}
HEAD = """
import sys
from pathlib import Path
here = Path(sys.argv[1])
def wait():
    print("made", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def killed() -> Callable[[str, Path], subprocess.Popen[str]]:
    def start(what: str, here: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HEAD + MAKING[what], str(here)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        assert process.stdout is not None and process.stdout.readline() == "made\n"
        return process

    return start


@pytest.mark.parametrize("what", MAKING)
def test_what_a_killed_process_left_is_removed_and_a_living_ones_is_not(what: str, killed) -> None:
    cache = cache_dir()
    process = killed(what, cache)
    (found,) = leftovers()
    assert found.bytes >= 5000 or what == "a shard in it"
    assert found.used == "in use by a process"
    assert remove(found) == "in use by a process"
    assert found.path.exists()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (found,) = leftovers()
    assert found.used == "" and remove(found) == ""
    assert leftovers() == [] and not found.path.exists()


def test_folders_of_the_user_are_looked_into_only_if_named(tmp_path: Path) -> None:
    run_dir = tmp_path / "runs" / "a"
    run_dir.mkdir(parents=True)
    torn = run_dir / ".checkpoint.pt.a1b2c3d4.tmp"
    for path in (torn, run_dir / ".checkpoint.previous.pt.tmp", run_dir / "checkpoint.pt", run_dir / ".mine.tmp"):
        path.write_bytes(b"x")
    assert leftovers() == []
    for folder in (run_dir, tmp_path / "runs", tmp_path):
        assert [item.path.name for item in leftovers([folder])] == [".checkpoint.previous.pt.tmp", torn.name]
    with pytest.raises(InputError, match="no such folder"):
        leftovers([tmp_path / "none"])


def test_nothing_of_a_run_that_goes_on_is_removed(tmp_path: Path) -> None:
    (tmp_path / CONFIG).touch()
    torn = tmp_path / ".checkpoint.pt.a1b2c3d4.tmp"
    torn.write_bytes(b"x")
    with owned(tmp_path):
        (found,) = leftovers([tmp_path])
        assert found.used == remove(found) == "in use by a process"
    assert [item.used for item in leftovers([tmp_path])] == [""]


def test_prepared_texts_are_removed_on_request_unless_they_are_read(corpus: Path) -> None:
    folder = cached_prepare([corpus])
    assert leftovers() == []
    reader = Lock(folder, "share")
    assert Lock(folder, "share").held == "yes"
    (found,) = leftovers(prepared=True)
    assert found.used and remove(found) and folder.is_dir()
    reader.release()
    (found,) = leftovers(prepared=True)
    assert remove(found) == "" and list(prepared_cache().iterdir()) == []


def test_a_file_system_without_locks_keeps_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(fd: int, how: int) -> None:
        raise OSError(37, "No locks available")

    torn = tmp_path / ".a.txt.a1b2c3d4.tmp"
    torn.touch()
    monkeypatch.setattr("golfcore.disk.fcntl.flock", no_locks)
    (found,) = leftovers([tmp_path])
    assert "no locks" in found.used and "no locks" in remove(found) and torn.exists()
    with temporary_folder(tmp_path / "b") as folder, atomic_write(folder / "c") as f:
        f.write(b"works")


def test_a_folder_removed_before_it_was_locked_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, opened = os.open, []

    def removed_first(path: Path, flags: int, *more: int, **where: int) -> int:
        if not opened:
            Path(path).rmdir()
        opened.append(path)
        return real(path, flags, *more, **where)

    monkeypatch.setattr("golfcore.data.leftovers.os.open", removed_first)
    with temporary_folder(tmp_path / "a") as folder:
        assert folder.is_dir() and len(opened) == 2
    assert list(tmp_path.iterdir()) == []
