"""A second decoder of GCF1, written from docs/format.md alone; shares no code with golfcore. Trusts its input."""

import json
import math
import struct

import numpy as np
import zstandard

TYPES = ["<f2", "<u2", "<f4", "i1", "u1", "<i2", "<u2", "<i4", "<i8"]


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def unzstd(frame: bytes, n: int) -> bytes:
    data = zstandard.ZstdDecompressor(format=zstandard.FORMAT_ZSTD1_MAGICLESS).decompress(frame, max_output_size=n)
    assert len(data) == n
    return data


class Cursor:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, n: int) -> bytes:
        self.at += n
        return self.data[self.at - n : self.at]

    def u8(self) -> int:
        return self.take(1)[0]

    def varint(self) -> int:
        value, shift = 0, 0
        while (byte := self.u8()) >= 128:
            value, shift = value + ((byte - 128) << shift), shift + 7
        return value + (byte << shift)


def decode(data: bytes) -> tuple[dict, list[tuple[str, str, int, np.ndarray]]]:
    """The manifest, and (name, role, kind code, array) of each tensor."""
    magic, major, _, flags, raw_len, coded_len, payload_len, crc = struct.unpack("<4sBBHIIII", data[:24])
    assert (magic, major, flags) == (b"GCF1", 1, 0)
    payload = data[24 + coded_len : -8]
    assert len(payload) == payload_len
    assert crc32c(data[:20] + data[24 : 24 + coded_len]) == crc
    r = Cursor(unzstd(data[24 : 24 + coded_len], raw_len))
    manifest = json.loads(r.take(r.varint()) or b"{}")
    heads = []
    for _ in range(r.varint()):
        codec, kind, role = r.u8(), r.u8(), r.take(r.u8()).decode()
        heads.append((codec, kind, role, r.varint(), r.varint(), r.take(r.u8()), r.take(4)))
    names = [b""]
    for _ in range(sum(head[3] for head in heads)):
        names.append(names[-1][: r.u8()] + r.take(r.u8()))
    shapes = [tuple(r.varint() for _ in range(r.u8())) for _ in names[1:]]
    assert r.at == raw_len

    tensors, at = [], 0
    for codec, kind, role, n, length, _, stored in heads:
        coded, at = payload[at : at + length], at + length
        assert crc32c(coded) == int.from_bytes(stored, "little")
        dtype = np.dtype("i1" if kind >= 128 else TYPES[kind])
        first = len(tensors)
        raw = sum(math.prod(shape) for shape in shapes[first : first + n]) * dtype.itemsize
        values = coded if codec == 0 else unzstd(coded, raw)
        if codec == 3:
            values = bytes(values[j * (raw // dtype.itemsize) + i] for i in range(raw // dtype.itemsize)
                           for j in range(dtype.itemsize))  # fmt: skip
        for i in range(first, first + n):
            size = math.prod(shapes[i]) * dtype.itemsize
            array = np.frombuffer(values[:size], dtype).reshape(shapes[i])
            tensors.append((names[i + 1].decode(), role, kind, array))
            values = values[size:]
        assert not values
    return manifest, tensors
