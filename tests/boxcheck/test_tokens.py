"""Hashes of shards against the folder's list or the manifest, and the room that a run takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from golfcore import disk
from golfcore.boxcheck.findings import Failed, Found, NotHere
from golfcore.boxcheck.tokens import SUMS, check_disk, check_tokens, compare_tokens, vocab_of
from golfcore.config import RecipeConfig
from golfcore.data.prepare import prepare
from golfcore.errors import FormatError, GolfError, InputError, MachineError
from golfcore.paths import sha256_file
from golfcore.ranks.rendezvous import Place


def write_sums(folder: Path) -> None:
    """As sha256sum writes it, one file read as binary, another below a path."""
    lines = [f"{sha256_file(path)}  {path.name}" for path in sorted(folder.glob("*.bin"))]
    (folder / SUMS).write_text("\n".join([lines[0].replace("  ", " *"), lines[1].replace("  ", "  ./"), *lines[2:]]))


def test_shards_without_a_list_are_hashed_and_their_origin_stays_open(boxed: RecipeConfig, shards: Path) -> None:
    found = check_tokens(boxed, Place())
    assert "3 shards, 800 training and 400 validation tokens" in found.detail
    assert f"no {SUMS} to compare with" in found.missing
    assert check_tokens(boxed, Place(1, 2, 1)) == Found("checked by the first rank of this machine")
    before = found.values["hash"]
    path = shards / "fineweb_val_000000.bin"
    path.write_bytes(path.read_bytes()[:-2] + b"\x09\x00")
    assert check_tokens(boxed, Place()).values["hash"] != before


def test_shards_are_compared_with_the_list(boxed: RecipeConfig, shards: Path) -> None:
    write_sums(shards)
    found = check_tokens(boxed, Place())
    assert f"3 agree with {SUMS}" in found.detail
    assert found.missing == ""


def flipped(folder: Path) -> None:
    path = folder / "fineweb_train_000001.bin"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def cut_short(folder: Path) -> None:
    path = folder / "fineweb_train_000001.bin"
    path.write_bytes(path.read_bytes()[:-2])


def unlisted(folder: Path) -> None:
    (folder / SUMS).write_text("".join((folder / SUMS).read_text().splitlines(keepends=True)[:2]))


def gone(folder: Path) -> None:
    for path in folder.glob("fineweb_train*"):
        path.unlink()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            flipped,
            f"train_000001.bin: sha256 [0-9a-f]{{16}}..., {SUMS} says [0-9a-f]{{16}}...; remove the file and fetch",
        ),
        (cut_short, "fineweb_train_000001.bin"),
        (unlisted, f"{SUMS}: no line for fineweb_val_000000.bin"),
        (gone, "no fineweb_train_000000.bin"),
    ],
)
def test_damaged_shards_fail(damage: Callable[[Path], None], said: str, boxed: RecipeConfig, shards: Path) -> None:
    write_sums(shards)
    damage(shards)
    with pytest.raises(GolfError, match=said):
        check_tokens(boxed, Place())


def test_machines_with_other_shards_fail() -> None:
    first = Found("", {"hash": 1.0})
    compare_tokens([first, Found("checked by the first rank of this machine"), first])
    with pytest.raises(Failed, match="different shards"):
        compare_tokens([first, Found("", {"hash": 2.0})])


def test_a_prepared_folder_has_its_manifest(text_file: Path, tmp_path: Path, boxed: RecipeConfig) -> None:
    folder = tmp_path / "prepared"
    prepare([text_file], folder, vocab_size=300)
    config = dataclasses.replace(boxed, data=dataclasses.replace(boxed.data, path=str(folder), vocab_size=300))
    assert vocab_of(config) == 300
    found = check_tokens(config, Place())
    assert "the hashes of 6 files agree" in found.detail
    assert found.missing == ""
    path = folder / "train_docs.sha"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(FormatError, match=r"train_docs\.sha: sha256"):
        check_tokens(config, Place())
    path.unlink()
    with pytest.raises(FormatError, match="cannot be read"):
        check_tokens(config, Place())


def test_tokens_that_are_absent_or_not_named(boxed: RecipeConfig) -> None:
    elsewhere = dataclasses.replace(boxed, data=dataclasses.replace(boxed.data, path="/absent", vocab_size=1024))
    with pytest.raises(InputError, match="no such folder; make it with"):
        check_tokens(elsewhere, Place())
    assert vocab_of(elsewhere) == 1024
    nothing = dataclasses.replace(boxed, data=dataclasses.replace(boxed.data, path=""))
    with pytest.raises(NotHere, match="prepared when a run begins"):
        check_tokens(nothing, Place())


def test_the_disk_needs_room_for_a_run(boxed: RecipeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = check_disk(boxed, tmp_path / "new" / "runs")
    assert "GB free, a run takes 0 MB" in found.detail
    assert not (tmp_path / "new").exists()
    monkeypatch.setattr(disk, "free_bytes", lambda folder: 1000)
    with pytest.raises(MachineError, match="too small"):
        check_disk(boxed, tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match="cannot write"):
        check_disk(boxed, tmp_path / "file" / "runs")


def test_no_device_is_needed_for_tokens(boxed: RecipeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: pytest.fail("a GPU was asked for"))
    check_tokens(boxed, Place())
