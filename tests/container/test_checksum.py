"""CRC-32C and XXH64 against published answers and against other implementations, on every instruction set."""

import os
import subprocess
import sys

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from golfcore import _core
from golfcore.container import plain_decoder


@pytest.mark.parametrize(
    ("data", "crc"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),  # RFC 3720, B.4
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_crc32c_known_answers(data: bytes, crc: int) -> None:
    assert _core.crc32c(data) == crc


@pytest.mark.parametrize(
    ("data", "seed", "value"),
    [
        (b"", 0, 0xEF46DB3751D8E999),
        (b"a", 0, 0xD24EC4F1A98C6E5B),
        (b"abc", 0, 0x44BC2CF5AD770999),
        (b"Nobody inspects the spammish repetition", 0, 0xFBCEA83C8A378BF1),
        (b"xxhash", 20141025, 0xB559B98D844E0635),
    ],
)
def test_xxh64_known_answers(data: bytes, seed: int, value: int) -> None:
    assert _core.xxh64(data, seed) == value


@given(st.binary(max_size=300))
def test_crc32c_is_the_bitwise_one(data: bytes) -> None:
    assert _core.crc32c(data) == plain_decoder.crc32c(data)


@given(st.binary(max_size=200), st.integers(0, 200))
def test_crc32c_continues(data: bytes, cut: int) -> None:
    assert _core.crc32c(data[cut:], _core.crc32c(data[:cut])) == _core.crc32c(data)


@given(st.binary(max_size=300))
def test_xxh64_is_the_checksum_of_zstd(data: bytes) -> None:
    frame = zstandard.ZstdCompressor(write_checksum=True).compress(data)
    assert _core.xxh64(data) & 0xFFFFFFFF == int.from_bytes(frame[-4:], "little")


def test_any_alignment_and_buffer() -> None:
    data = bytes(range(256)) * 3
    for offset in range(9):
        shifted = memoryview(bytes(offset) + data)[offset:]
        assert _core.crc32c(shifted) == _core.crc32c(data)
        assert _core.xxh64(shifted) == _core.xxh64(data)
    assert _core.crc32c(np.frombuffer(data, np.int64)) == _core.crc32c(bytearray(data))
    with pytest.raises((BufferError, ValueError)):
        _core.crc32c(np.frombuffer(data, np.uint8)[::2])
    with pytest.raises(TypeError):
        _core.crc32c("text")


@pytest.mark.parametrize("isa", _core.isas())
def test_every_instruction_set_agrees(isa: str) -> None:
    code = (
        "from golfcore import _core; d = bytes(i * 167 % 256 for i in range(1000));"
        "print([_core.crc32c(d[i:j]) for i in range(8) for j in range(990, 1000)])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "GOLF_ISA": isa}, capture_output=True, text=True
    )
    data = bytes(i * 167 % 256 for i in range(1000))
    assert run.stdout == f"{[plain_decoder.crc32c(data[i:j]) for i in range(8) for j in range(990, 1000)]}\n", (
        run.stderr
    )
