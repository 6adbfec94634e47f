"""Shards byte for byte, every broken header, and many shards as one array."""

import errno
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from golfcore.data.shards import (
    HEADER_BYTES,
    ShardSet,
    ShardWriter,
    check_ids,
    map_shard,
    read_header,
    split_files,
)
from golfcore.errors import FormatError, InputError
from golfcore.paths import sha256_file


def write(folder: Path, split: str, ids: list[int] | np.ndarray, shard_tokens: int = 1000) -> ShardWriter:
    with ShardWriter(folder, split, shard_tokens) as writer:
        writer.append(np.asarray(ids, dtype=np.uint16))
    return writer


def image(magic: int = 20240520, version: int = 1, count: int = 3, ids: tuple[int, ...] = (1, 259, 65535)) -> bytes:
    """A shard spelled out from the format's description."""
    return struct.pack("<256i", magic, version, count, *[0] * 253) + struct.pack(f"<{len(ids)}H", *ids)


def test_a_shard_is_the_format_byte_for_byte(tmp_path: Path) -> None:
    writer = write(tmp_path, "train", [1, 259, 65535])
    path = tmp_path / "fineweb_train_000000.bin"
    assert path.read_bytes() == image()
    (record,) = writer.records
    assert (record.name, record.tokens, record.sha256) == (path.name, 3, sha256_file(path))


def test_the_stream_is_cut_into_shards_wherever_appends_fall(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, "val", 4) as writer:
        for part in ([1, 2, 3], [], [4, 5, 6, 7, 8, 9], [10]):
            writer.append(np.array(part, dtype=np.uint16))
    assert [r.tokens for r in writer.records] == [4, 4, 2]
    assert [p.name for p in split_files(tmp_path, "val")] == [f"fineweb_val_{i:06d}.bin" for i in range(3)]
    assert ShardSet.of_split(tmp_path, "val")[:].tolist() == list(range(1, 11))


def test_an_exact_multiple_leaves_no_empty_shard(tmp_path: Path) -> None:
    assert [r.tokens for r in write(tmp_path, "train", list(range(8)), 4).records] == [4, 4]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "an empty file"),
        (image()[:1000], "shorter than the header"),
        (image(magic=20240521), "magic 20240521"),
        (image(version=2), "version 2"),
        (image(count=0, ids=()), "number of tokens = 0: expected a whole number, 1 to 2,147,483,647"),
        (image(count=-1), "number of tokens = -1: expected a whole number"),
        (image(count=4), "expected 1032 for 4 tokens"),
        (image()[:-1], "1029 bytes, expected 1030"),
        (image() + b"\0\0", "1032 bytes, expected 1030"),
    ],
)
def test_broken_shards_are_named(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "fineweb_train_000000.bin"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=expected) as caught:
        map_shard(path)
    assert str(path) in str(caught.value)


def test_absent_shards(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_header(tmp_path / "fineweb_train_000000.bin")
    with pytest.raises(InputError, match="no such folder"):
        ShardSet.of_split(tmp_path / "nowhere", "train")
    with pytest.raises(InputError, match="no fineweb_train_000000"):
        ShardSet.of_split(tmp_path, "train")
    with pytest.raises(InputError, match="no token shards"):
        ShardSet([])


@pytest.mark.parametrize("count", [0, 2**31])
def test_shard_sizes_that_fit_no_header(tmp_path: Path, count: int) -> None:
    with pytest.raises(InputError, match="shard_tokens"):
        ShardWriter(tmp_path, "train", count)


def test_an_id_outside_the_vocabulary_is_named() -> None:
    ids = np.array([5, 259, 260, 300], dtype=np.uint16)
    with pytest.raises(FormatError, match="id 260 at token 2"):
        check_ids(ids, 260, "here")
    check_ids(ids, 301, "here")


def test_byte_counts_beside_validation_shards_are_not_tokens(tmp_path: Path) -> None:
    for split in ("val", "val_bytes", "train"):
        write(tmp_path, split, [1, 2])
    (tmp_path / "fineweb_val_0.bin").write_bytes(b"")
    assert [p.name for p in split_files(tmp_path, "val")] == ["fineweb_val_000000.bin"]


def test_a_shard_in_progress_is_dropped_on_failure(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), ShardWriter(tmp_path, "train", 4) as writer:
        writer.append(np.arange(6, dtype=np.uint16))
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.iterdir()] == ["fineweb_train_000000.bin"]


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("golfcore.paths.os.fsync", full)
    with pytest.raises(InputError, match="the disk is full"):
        write(tmp_path, "train", [1, 2, 3])
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def shard_set(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    folder = tmp_path_factory.mktemp("set")
    write(folder, "train", np.arange(23), 5)
    return ShardSet.of_split(folder, "train")


@given(start=st.none() | st.integers(-30, 30), stop=st.none() | st.integers(-30, 30))
def test_slices_are_those_of_one_array(shard_set: ShardSet, start: int | None, stop: int | None) -> None:
    got = shard_set[start:stop]
    assert got.dtype == np.uint16
    assert got.tolist() == np.arange(23)[start:stop].tolist()


def test_a_slice_inside_one_shard_is_a_view(shard_set: ShardSet) -> None:
    assert len(shard_set) == 23
    inside = shard_set[5:10]
    assert not inside.flags.owndata
    assert not inside.flags.writeable
    with pytest.raises(InputError, match="step 2"):
        shard_set[0:4:2]


def test_header_bytes() -> None:
    assert len(image(ids=())) == HEADER_BYTES
