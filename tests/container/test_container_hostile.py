"""Broken and malicious containers give a FormatError that says where, and never cost more memory than the limit."""

import os
import tracemalloc
from pathlib import Path

import container_cases as cases
import numpy as np
import pytest

from golfcore.container import Container, Tensor, encode
from golfcore.errors import FormatError

BAD = cases.bad()


def read_all(data: bytes, limit: int = 1 << 20) -> dict[str, bytes]:
    with Container.from_bytes(data, limit) as c:
        c.verify()
        return {name: c.read(name).tobytes() for name in c.tensors}


@pytest.mark.parametrize("case", BAD)
def test_each_broken_rule_is_named(case: str) -> None:
    path = cases.GOLDEN / "bad" / f"{case}.golf"
    with pytest.raises(FormatError, match=BAD[case][1]) as error, Container.open(path) as c:
        c.verify()
    assert str(path) in str(error.value)
    assert str(error.value).isprintable()


def test_truncation_at_every_byte() -> None:
    data = encode(cases.small_model()[-3:], {"a": 1})
    for n in range(len(data)):
        with pytest.raises(FormatError, match="cut off"):
            read_all(data[:n])


def test_every_flipped_bit_is_found() -> None:
    data = encode(cases.small_model()[-3:], {"a": 1})
    for i in range(len(data)):
        for bit in range(8):
            broken = bytearray(data)
            broken[i] ^= 1 << bit
            with pytest.raises(FormatError):
                read_all(bytes(broken))


def test_flipped_bits_behind_right_checksums_are_refused_or_decode_within_bounds() -> None:
    data = encode(cases.small_model()[-3:], {"a": 1})
    frame_len = int.from_bytes(data[12:16], "little")
    raw = cases.unzstd(data[24 : 24 + frame_len], int.from_bytes(data[8:12], "little"))
    refused = 0
    for i in range(len(raw)):
        for bit in range(8):
            broken = bytearray(raw)
            broken[i] ^= 1 << bit
            try:
                read_all(cases.container(bytes(broken), data[24 + frame_len : -8]))
            except FormatError as error:
                assert str(error).isprintable()
                refused += 1
    assert refused > 4 * len(raw)  # most; a changed letter in a name or role is another valid container


@pytest.mark.parametrize(
    "data",
    [
        cases.one(cases.zstd(bytes(1 << 19)), cases.shape(1 << 31 - 1, 1 << 8), codec=2),
        cases.one(cases.zstd(bytes(1 << 25)), cases.shape(1 << 12), codec=2),
        cases.one(cases.zstd(bytes(1 << 25), window_log=10), cases.shape(1 << 19), codec=2),
        cases.one(cases.zstd(bytes(1 << 25), write_content_size=1), cases.shape(1 << 19), codec=2),
        cases.one(b"", cases.shape(0, (1 << 31) - 1, (1 << 31) - 1)),
        cases.container(b"", frame=cases.zstd(bytes(1 << 25)), raw_len=1 << 10),
        cases.container(b"", frame=cases.zstd(bytes(1 << 25), write_content_size=1), raw_len=1 << 10),
        cases.container(cases.directory(cases.chunk(b"", n=65_535), chunks=cases.varint(65_535))),
    ],
)
def test_bombs_cost_no_memory(data: bytes) -> None:
    limit = 1 << 20
    tracemalloc.start()
    try:
        with pytest.raises(FormatError):
            read_all(data, limit)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * limit


def test_the_limit_counts_all_tensors() -> None:
    data = encode([Tensor("a", "r", np.zeros(600, np.int8)), Tensor("b", "s", np.zeros(200, np.float16))], {})
    assert len(read_all(data, limit=1000)) == 2
    with pytest.raises(FormatError, match="tensors of 1000 bytes, more than the limit of 999"):
        read_all(data, limit=999)


def test_a_pipe_or_folder_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FormatError, match=r"is a pipe or device.*save it as a file"):
        Container.open(tmp_path / "pipe")
    with pytest.raises(FormatError, match="is a folder"):
        Container.open(tmp_path)


def test_a_file_that_shrinks_while_open(tmp_path: Path) -> None:
    path = tmp_path / "model.golf"
    noise = np.frombuffer(np.random.default_rng(0).bytes(40_000), np.uint8)  # more than the file object buffers
    data = encode([Tensor("big", "r", noise)], {})
    path.write_bytes(data)
    with Container.open(path) as c:
        os.truncate(path, len(data) - 20)
        with pytest.raises(FormatError, match=r"tensor 'big' needs .* the file now ends"):
            c.read("big")
        with pytest.raises(FormatError, match="the file needs"):
            c.verify()


def test_a_newer_minor_version_is_read() -> None:
    raw = cases.directory(cases.chunk(b"abcd"), cases.name(b"t"), cases.shape(4))
    assert read_all(cases.container(raw, b"abcd", minor=9)) == {"t": b"abcd"}
