"""Stand in for ``golfcore.container``: write GCF1 in numpy, with the codecs that need no compiled core.

The adaptive rANS coder is the plain decoder run backwards: ``_Recorder`` takes the place of its lanes, hands it the
symbols that it is to find, and notes the frequency of each; the coded words follow from those in reverse.
"""

from __future__ import annotations

import lzma
import struct
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from golfcore.container import grid, plain_decoder
from golfcore.container.codec_base import Layout
from golfcore.container.directory import ChunkInfo
from golfcore.container.directory import to_bytes as directory_bytes
from golfcore.container.generic_codecs import zstd_compress
from golfcore.container.tensors import Kind, Tensor, kind_of

__all__ = ["Tensor", "encode"]

Array = npt.NDArray[Any]
MASK = (1 << 64) - 1
PRIMES = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)


def encode(tensors: Sequence[Tensor], manifest: Mapping[str, Any]) -> bytes:
    """Return the bytes of a container; see ``golfcore.container.writing.encode``."""
    groups: dict[tuple[str, Any], list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault((tensor.role, kind_of(tensor)), []).append(tensor)
    chunks, names, payload = [], [], b""
    for (role, kind), group in groups.items():
        layout = Layout(kind, tuple(tensor.array.shape for tensor in group))
        raw = b"".join(tensor.array.astype(kind.numpy).tobytes() for tensor in group)
        codec, params, coded = min(_attempts(raw, layout), key=lambda found: len(found[1]) + len(found[2]))
        checksum = plain_decoder.crc32c(coded)
        chunks.append(ChunkInfo(role, layout, codec, params, len(coded), checksum, len(payload)))
        names += [tensor.name for tensor in group]
        payload += coded
    raw = directory_bytes(manifest, chunks, names)
    coded = zstd_compress(raw)
    head = struct.pack("<4sBBHIII", b"GCF1", 1, 2, 0, len(raw), len(coded), len(payload))
    body = head + plain_decoder.crc32c(head + coded).to_bytes(4, "little") + coded + payload
    return body + xxh64(body).to_bytes(8, "little")


def _attempts(raw: bytes, layout: Layout) -> list[tuple[int, bytes, bytes]]:
    """Return (codec, parameters, coded bytes) of every codec that serves a chunk."""
    kind, found = layout.kind, [(0, b"", raw)]
    if not raw:
        return found
    if kind.bits:
        weights_log2 = len(raw).bit_length() - 1
        lanes_log2 = max(0, min(weights_log2 - 13, weights_log2 // 2 - 4, 8))
        found.append((5, bytes((lanes_log2, 5, 0)), _adaptive(raw, layout, lanes_log2, 5, 0)))
        if kind.bits < 8:
            u = np.frombuffer(raw, np.uint8) + np.uint8(1 << (kind.bits - 1))
            packed = np.unpackbits(u[:, None], axis=1, count=kind.bits, bitorder="little")
            found.append((1, b"", np.packbits(packed, bitorder="little").tobytes()))
        return found
    if kind.dtype == "u8":
        window = max(1 << 12, min(1 << 27, 1 << (len(raw) - 1).bit_length()))
        how = {"id": lzma.FILTER_LZMA1, "preset": 9, "dict_size": window, "lc": 3, "lp": 0, "pb": 0}
        found.append((8, b"\3", lzma.compress(raw, lzma.FORMAT_RAW, filters=[how])))
        return found
    planes = np.frombuffer(raw, np.uint8).reshape(-1, kind.itemsize).T.tobytes()
    found.append((3, b"", zstd_compress(planes)))
    index = grid.to_index(np.frombuffer(raw, "<u2")) if kind.dtype == "f16" else None
    if index is not None:
        sizes = [rows * cols for rows, cols in layout.matrices]
        medians = [int(np.sort(part)[part.size // 2]) for part in np.split(index, list(accumulate(sizes))[:-1])]
        distances = index - np.repeat(np.array(medians, np.uint8), sizes)
        columns = Layout(Kind("i8", 8), tuple((size,) for size in sizes))
        found.append((7, b"\0\x0f\2", bytes(medians) + _adaptive(distances.tobytes(), columns, 0, 15, 2)))
    return found


class _Recorder:
    """The lanes of ``plain_decoder.adaptive`` for an encoder: its symbols are known, their frequencies are noted."""

    symbols: Array = np.empty(0, np.int16)  # of the chunk, as the next instance takes them
    last: _Recorder

    def __init__(self, coded: bytes, lanes_log2: int, bits: int, trellis: int, contexts: int) -> None:
        self.lanes, self.half, self.at = 1 << lanes_log2, 1 << (bits - 1), 0
        self.tables = np.zeros((contexts, 2, (1 << bits) + 1), np.uint64)  # frequency and start
        self.runs: list[Array] = []
        self.escapes: list[Array] = []
        _Recorder.last = self

    def set_table(self, context: int, freq: Array) -> None:
        freq = np.append(freq, plain_decoder.SLOTS - freq.sum())
        self.tables[context] = freq, np.cumsum(freq) - freq

    def run(self, context_C: Array, rows: int) -> Array:
        symbols = self.symbols[self.at : self.at + rows * context_C.size]
        self.at += symbols.size
        context, place = np.tile(context_C, rows), symbols + self.half
        missing = self.tables[context, 0, place] == 0
        self.escapes.append(place[missing].astype(np.uint8))
        place = np.where(missing, self.tables.shape[2] - 1, place)
        self.runs.append(self.tables[context, :, place])
        return symbols.reshape(rows, -1)

    def coded(self) -> bytes:
        """Return lanes, words and escapes of what was recorded."""
        x, words = np.full(self.lanes, 1 << 16, np.uint64), []
        for run in reversed(self.runs):
            for begin in reversed(range(0, len(run), self.lanes)):
                freq, start = run[begin : begin + self.lanes].T
                own = x[: freq.size]
                full = own >= freq << np.uint64(18)
                words.append(own[full].astype("<u2"))
                own[full] >>= np.uint64(16)
                quotient = own // freq
                own[:] = (quotient << np.uint64(14)) + own - quotient * freq + start
        escapes = np.concatenate(self.escapes)[::-1]
        return x.astype("<u4").tobytes() + np.concatenate(words[::-1]).tobytes() + escapes.tobytes()


def _adaptive(raw: bytes, layout: Layout, lanes_log2: int, prior_log2: int, shift: int) -> bytes:
    _Recorder.symbols = np.frombuffer(raw, np.int8).astype(np.int16)
    mean = min(65535, max(1, 256 * int(np.abs(_Recorder.symbols).sum()) // len(raw))).to_bytes(2, "little")
    lanes, plain_decoder.Lanes = plain_decoder.Lanes, _Recorder  # type: ignore[assignment, misc]
    try:
        params = bytes((lanes_log2, prior_log2, shift))
        plain_decoder.adaptive(mean, params, layout.kind.bits, 0, list(layout.matrices))
    finally:
        plain_decoder.Lanes = lanes  # type: ignore[misc]
    return mean + _Recorder.last.coded()


def xxh64(data: bytes) -> int:
    """Return the XXH64 hash of data, seed 0."""
    p1, p2, p3, p4, p5 = PRIMES

    def turn(x: int, bits: int) -> int:
        return (x << bits | x >> 64 - bits) & MASK

    def round_(lane: int, word: int) -> int:
        return turn((lane + word * p2) & MASK, 31) * p1 & MASK

    whole = len(data) // 32 * 32
    h = p5
    if whole:
        lanes = [p1 + p2 & MASK, p2, 0, -p1 & MASK]
        for words in struct.iter_unpack("<4Q", data[:whole]):
            lanes = [round_(lane, word) for lane, word in zip(lanes, words, strict=True)]
        h = sum(turn(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18), strict=True)) & MASK
        for lane in lanes:
            h = ((h ^ round_(0, lane)) * p1 + p4) & MASK
    h, rest = (h + len(data)) & MASK, data[whole:]
    while len(rest) >= 8:
        h = (turn(h ^ round_(0, int.from_bytes(rest[:8], "little")), 27) * p1 + p4) & MASK
        rest = rest[8:]
    if len(rest) >= 4:
        h = (turn(h ^ int.from_bytes(rest[:4], "little") * p1 & MASK, 23) * p2 + p3) & MASK
        rest = rest[4:]
    for byte in rest:
        h = turn(h ^ byte * p5 & MASK, 11) * p1 & MASK
    h = (h ^ h >> 33) * p2 & MASK
    h = (h ^ h >> 29) * p3 & MASK
    return h ^ h >> 32
