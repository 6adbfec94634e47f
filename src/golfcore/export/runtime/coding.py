"""Stand in for ``golfcore.container``: write GCF1 in numpy, with the codecs that need no compiled core.

The adaptive rANS coder is the plain decoder run backwards: ``_Recorder`` takes the place of its lanes, hands it the
symbols that it is to find, and notes the frequency of each; the coded words follow from those in reverse.
"""

from __future__ import annotations

import json
import lzma
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from golfcore.container import grid, plain_decoder
from golfcore.container.generic_codecs import zstd_compress
from golfcore.container.tensors import Tensor
from golfcore.container.wire import varint

__all__ = ["Tensor", "encode"]

Array = npt.NDArray[Any]
MASK = (1 << 64) - 1
PRIMES = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)


def encode(tensors: Sequence[Tensor], manifest: Mapping[str, Any]) -> bytes:
    """Return the bytes of a container; see ``golfcore.container.writing.encode``."""
    groups: dict[tuple[str, int], list[Tensor]] = {}
    for tensor in tensors:
        kind = 128 | tensor.bits if tensor.bits else plain_decoder.TYPES.index(tensor.array.dtype.str.lstrip("|"))
        groups.setdefault((tensor.role, kind), []).append(tensor)
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    heads, names, shapes, payload, before = [varint(len(text)), text, varint(len(groups))], b"", b"", b"", b""
    for (role, kind), group in groups.items():
        raw = b"".join(tensor.array.tobytes() for tensor in group)
        found = _attempts(raw, kind, [tensor.array.shape for tensor in group])
        codec, params, coded = min(found, key=lambda one: len(one[1]) + len(one[2]))
        heads += [
            bytes((codec, kind, len(role))), role.encode(), varint(len(group)), varint(len(coded)),
            bytes((len(params),)), params, plain_decoder.crc32c(coded).to_bytes(4, "little"),
        ]  # fmt: skip
        payload += coded
        for tensor in group:
            name, shared = tensor.name.encode(), 0
            while before[shared : shared + 1] == name[shared : shared + 1] != b"":
                shared += 1
            names += bytes((shared, len(name) - shared)) + name[shared:]
            before = name
            shapes += bytes((tensor.array.ndim,)) + b"".join(map(varint, tensor.array.shape))
    raw = b"".join(heads) + names + shapes
    coded = zstd_compress(raw)
    head = struct.pack("<4sBBHIII", b"GCF1", 1, 2, 0, len(raw), len(coded), len(payload))
    body = head + plain_decoder.crc32c(head + coded).to_bytes(4, "little") + coded + payload
    return body + xxh64(body).to_bytes(8, "little")


def _attempts(raw: bytes, kind: int, shapes: list[tuple[int, ...]]) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield (codec, parameters, coded bytes) of every codec that serves a chunk."""
    yield 0, b"", raw
    if not raw:
        return
    if bits := kind & 15 if kind >= 128 else 0:
        weights_log2 = len(raw).bit_length() - 1
        lanes_log2 = max(0, min(weights_log2 - 13, weights_log2 // 2 - 4, 8))
        matrices = [(math.prod(shape[:-1]), shape[-1]) for shape in shapes]
        yield 5, bytes((lanes_log2, 5, 0)), _adaptive(raw, bits, matrices, lanes_log2, 5, 0)
        if bits < 8:
            u = np.frombuffer(raw, np.uint8) + np.uint8(1 << (bits - 1))
            packed = np.unpackbits(u[:, None], axis=1, count=bits, bitorder="little")
            yield 1, b"", np.packbits(packed, bitorder="little").tobytes()
    elif kind == 4:
        window = max(1 << 12, min(1 << 27, 1 << (len(raw) - 1).bit_length()))
        how = {"id": lzma.FILTER_LZMA1, "preset": 9, "dict_size": window, "lc": 3, "lp": 0, "pb": 0}
        yield 8, b"\3", lzma.compress(raw, lzma.FORMAT_RAW, filters=[how])
    elif kind == 0:
        yield 3, b"", zstd_compress(raw[::2] + raw[1::2])
        index = grid.to_index(np.frombuffer(raw, "<u2"))
        if index is not None:
            sizes = [math.prod(shape) for shape in shapes]
            medians = [int(np.sort(part)[part.size // 2]) for part in np.split(index, list(accumulate(sizes))[:-1])]
            distances = (index - np.repeat(np.array(medians, np.uint8), sizes)).tobytes()
            columns = [(size, 1) for size in sizes]
            yield 7, b"\0\x0f\2", bytes(medians) + _adaptive(distances, 8, columns, 0, 15, 2)


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


def _adaptive(
    raw: bytes, bits: int, matrices: list[tuple[int, int]], lanes_log2: int, prior_log2: int, shift: int
) -> bytes:
    _Recorder.symbols = np.frombuffer(raw, np.int8).astype(np.int16)
    mean = min(65535, max(1, 256 * int(np.abs(_Recorder.symbols).sum()) // len(raw))).to_bytes(2, "little")
    plain_decoder.adaptive(mean, bytes((lanes_log2, prior_log2, shift)), bits, 0, matrices, _Recorder)
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
