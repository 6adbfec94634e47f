"""Places on the disk: what is found out before long work, and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from golfcore.disk import check_room, check_target, check_writable, free_bytes, new_folder, require_new_folder
from golfcore.errors import InputError, MachineError


def fill(folder: Path) -> None:
    with new_folder(folder, last="manifest.json") as temporary:
        (temporary / "manifest.json").write_text("{}")
        (temporary / "a").write_text("1")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """An empty mounted volume, to which nothing can be renamed; skips where this user may not mount one."""
    folder = tmp_path / "volume"
    folder.mkdir()
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)],
            capture_output=True,
            timeout=20,
            check=False,
        )
    except OSError as error:
        pytest.skip(f"no mount command: {error}")
    if done.returncode:
        pytest.skip("a volume cannot be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=20)


def test_a_mounted_volume_is_written_from_the_inside(volume: Path) -> None:
    with pytest.raises(OSError, match="busy"):
        (volume.parent / "other").mkdir()
        (volume.parent / "other").rename(volume)
    (volume / "lost+found").mkdir()
    require_new_folder(volume)
    fill(volume)
    assert names(volume) == ["a", "lost+found", "manifest.json"]


def test_no_folder_that_exists_is_renamed_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same where no volume can be mounted, and for the working folder."""
    real = os.rename

    def rename(source: Path, target: Path) -> None:
        if Path(target).is_dir():
            raise OSError(errno.EBUSY, "Device or resource busy")
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    monkeypatch.setattr(os, "replace", rename)
    (tmp_path / "there").mkdir()
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    for folder in (tmp_path / "there", tmp_path / "new", Path()):
        require_new_folder(folder)
        fill(folder)
        assert names(folder) == ["a", "manifest.json"]
    assert names(tmp_path) == ["cwd", "new", "there"]


def test_the_manifest_appears_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, count = Path.rename, []

    def rename(self: Path, target: Path) -> Path:
        count.append(target.name)
        if len(count) == 2:
            raise OSError(errno.EIO, "Input/output error")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(InputError, match="Input/output error"):
        fill(tmp_path)
    assert count == ["a", "manifest.json"]
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("there", [True, False])
def test_a_failure_leaves_nothing(tmp_path: Path, there: bool) -> None:
    folder = tmp_path / "f"
    if there:
        folder.mkdir()
    for error in (KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")):
        with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else InputError):  # noqa: SIM117
            with new_folder(folder) as temporary:
                (temporary / "a").touch()
                raise error
    assert folder.exists() == there
    assert not there or names(folder) == []


def test_what_a_killed_process_left_inside_is_removed(tmp_path: Path) -> None:
    (tmp_path / f".{tmp_path.name}.0123.tmp").mkdir()
    fill(tmp_path)
    assert names(tmp_path) == ["a", "manifest.json"]


@pytest.mark.parametrize("what", ["file", "full"])
def test_a_place_that_is_taken(tmp_path: Path, what: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    with pytest.raises(InputError, match="exists and is not an empty folder"):
        require_new_folder(tmp_path / what)


def test_two_processes_do_not_fill_one_folder(tmp_path: Path) -> None:
    with new_folder(tmp_path), pytest.raises(InputError, match="written by another process"):
        fill(tmp_path)


def test_a_place_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"):
        require_new_folder(tmp_path / "file" / "out")
    with pytest.raises(InputError, match="cannot write"):
        check_target(tmp_path / "file" / "model.golf")
    with pytest.raises(InputError, match="is a folder"):
        check_target(tmp_path)
    check_target(tmp_path / "new" / "model.golf")
    assert names(tmp_path / "new") == []


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EACCES])
@pytest.mark.parametrize("call", ["mkdir", "rename"])
def test_a_folder_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, call: str
) -> None:
    """As root too, whom no permission keeps from writing."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, {"mkdir": "mkdir", "rename": "replace"}[call], refuse)
    if call == "rename":
        monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(MachineError, match="cannot write"):
        check_writable(tmp_path)
    with contextlib.suppress(FileNotFoundError):
        assert names(tmp_path) == []


def test_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = free_bytes(tmp_path)
    assert free is not None
    check_room(tmp_path, 0)
    with pytest.raises(MachineError, match=r"bytes are needed and .* are free"):
        check_room(tmp_path, free * 2 + (1 << 30))
    found = list(os.statvfs(tmp_path))
    found[2] = found[3] = found[4] = 0  # a file system that does not count its blocks
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(found))
    assert free_bytes(tmp_path) is None
    check_room(tmp_path, 1 << 60)
