"""Decode GCF1 with numpy and zstandard alone: a second decoder, without golfcore.

It is written from docs/reference/formats.md. A contest entry that must run without golfcore carries this file, and
``plain_binary.py`` if it has chunks of codec 9. ``decode`` checks the checksums and trusts the rest of its input.
"""

import importlib
import json
import lzma
import math
import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import zstandard

Array = npt.NDArray[Any]

TYPES = ["<f2", "<u2", "<f4", "i1", "u1", "<i2", "<u2", "<i4", "<i8"]
SLOTS, ESCAPE = 1 << 14, 1 << 14
SLOT = np.arange(SLOTS, dtype=np.uint32)
# In arrays: numpy looks at what type a Python number has to become, which takes longer than the sum of a few lanes.
SLOT_BITS, SLOT_MASK, WORD_BITS, WORD_MASK, LOW = (
    np.array(n, np.uint32) for n in (14, SLOTS - 1, 16, (1 << 16) - 1, 1 << 16)
)
MANTISSA = [1024, 1117, 1218, 1328, 1448, 1579, 1722, 1878]
THRESHOLDS = np.array([MANTISSA[j & 7] << (j >> 3) >> 10 for j in range(160)])
CODES = [
    (0, 0),
    (0, 0),
    (0o5, 0o2),
    (0o13, 0o4),
    (0o23, 0o4),
    (0o45, 0o10),
    (0o103, 0o24),
    (0o235, 0o126),
    (0o515, 0o362),
]


def decode(data: bytes) -> tuple[dict[str, Any], list[tuple[str, str, int, Array]]]:
    """Decode a file; return its manifest and (name, role, kind code, array) of each tensor in file order."""
    magic, major, _, flags, raw_len, coded_len, payload_len, crc = struct.unpack("<4sBBHIIII", data[:24])
    payload = data[24 + coded_len : -8]
    if (magic, major, flags, len(payload)) != (b"GCF1", 1, 0, payload_len):
        raise ValueError("not a GCF1 file of version 1, or cut off")
    if crc32c(data[:20] + data[24 : 24 + coded_len]) != crc:
        raise ValueError("the directory is damaged")
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

    tensors: list[tuple[str, str, int, Array]] = []
    at = 0
    for codec, kind, role, n, length, params, stored in heads:
        coded, at = payload[at : at + length], at + length
        if crc32c(coded) != int.from_bytes(stored, "little"):
            raise ValueError(f"the chunk of role {role} is damaged")
        first = len(tensors)
        dtype = np.dtype("i1" if kind >= 128 else TYPES[kind])
        values = np.frombuffer(decode_chunk(codec, kind, params, coded, shapes[first : first + n], dtype), dtype)
        for i in range(first, first + n):
            size = math.prod(shapes[i])
            tensors.append((names[i + 1].decode(), role, kind, values[:size].reshape(shapes[i])))
            values = values[size:]
    return manifest, tensors


def decode_chunk(codec: int, kind: int, params: bytes, coded: bytes, shapes: list[tuple[int, ...]], dtype: Any) -> Any:
    """Decode a chunk to its raw bytes."""
    n = sum(math.prod(shape) for shape in shapes)
    raw_len = n * dtype.itemsize
    matrices = [(math.prod(s[:-1]), s[-1]) if len(s) > 1 else (math.prod(s), 1) for s in shapes if math.prod(s)]
    bits, trellis = kind & 15, (kind >> 4 & 7) + 1 if kind >> 4 & 7 else 0
    if codec == 0:
        return coded
    if codec == 1:
        flat = np.unpackbits(np.frombuffer(coded, np.uint8), bitorder="little")[: n * bits].reshape(n, bits)
        return np.packbits(flat, axis=1, bitorder="little")[:, 0] - np.uint8(1 << (bits - 1))
    if codec == 2:
        return unzstd(coded, raw_len)
    if codec == 3:
        return np.frombuffer(unzstd(coded, raw_len), np.uint8).reshape(dtype.itemsize, -1).T.tobytes()
    if codec == 4:
        return static(coded, params, bits, trellis, matrices)
    if codec == 5:
        return adaptive(coded, params, bits, trellis, matrices)
    if codec == 6:
        digits = np.frombuffer(coded, np.uint8)[:, None] // np.array([1, 3, 9, 27, 81], np.uint8) % 3
        return digits.reshape(-1)[:n] - np.uint8(1)
    if codec == 7:
        medians, sizes = np.frombuffer(coded, np.uint8, len(matrices)), [rows * cols for rows, cols in matrices]
        steps = adaptive(coded[len(sizes) :], params, 8, 0, [(size, 1) for size in sizes])
        grid = [0, *((e + 1) << 10 | m - 1024 for e in range(30) for m in MANTISSA)]
        return np.array(grid, "<u2")[steps.view(np.uint8) + np.repeat(medians, sizes)].tobytes()
    if codec == 8:
        window = max(1 << 12, min(1 << 27, 1 << (raw_len - 1).bit_length()))
        filters = [{"id": lzma.FILTER_LZMA1, "dict_size": window, "lc": params[0], "lp": 0, "pb": 0}]
        return lzma.decompress(coded, lzma.FORMAT_RAW, filters=filters)
    if codec == 9:
        beside = importlib.import_module(".plain_binary", __package__) if __package__ else __import__("plain_binary")
        return beside.binary(coded, params, bits, trellis, matrices, THRESHOLDS, CODES[trellis], first_counts)
    raise ValueError(f"unknown codec {codec}")


class Lanes:
    """A decoder of interleaved rANS: every numpy step decodes one symbol per lane."""

    def __init__(self, coded: bytes, lanes_log2: int, bits: int, trellis: int, contexts: int) -> None:
        self.lanes, self.half, self.alphabet = 1 << lanes_log2, 1 << (bits - 1), 1 << bits
        self.x = np.frombuffer(coded, "<u4", self.lanes).astype(np.uint32)
        words = np.frombuffer(coded[4 * self.lanes :][: (len(coded) - 4 * self.lanes) // 2 * 2], "<u2")
        self.words = words.astype(np.uint32)
        self.escapes = np.frombuffer(coded, np.uint8)[::-1].astype(np.int16) - self.half
        self.word = self.escape = 0
        h0, h1 = CODES[trellis]
        self.masks = np.array([0, h0 >> 1, h1 >> 1, (h0 ^ h1) >> 1], np.uint8)
        self.step = np.empty((contexts, SLOTS), np.uint32)  # frequency << 16 | slot - start, by slot
        self.symbol = np.empty((contexts, SLOTS), np.int16)
        self.flat_step, self.flat_symbol = self.step.reshape(-1), self.symbol.reshape(-1)

    def set_table(self, context: int, freq: Array) -> None:
        """Set the frequencies of the alphabet; the rest up to 2^14 belongs to the escape."""
        freq = np.append(freq, SLOTS - freq.sum())
        start = np.cumsum(freq) - freq
        self.step[context] = np.repeat(((freq << 16) - start).astype(np.uint32), freq) + SLOT
        self.symbol[context] = np.repeat(np.append(np.arange(self.alphabet) - self.half, ESCAPE), freq)

    def advance(self, index: Array) -> None:
        """Move as many lanes past the symbols at ``index``, where their contexts begin in the flat tables."""
        x = self.x[: index.size]
        index += x & SLOT_MASK
        packed = self.flat_step.take(index)
        x >>= SLOT_BITS
        x *= packed >> WORD_BITS
        packed &= WORD_MASK
        x += packed
        (low,) = (x < LOW).nonzero()
        after = self.word + low.size
        x[low] = x[low] << WORD_BITS | self.words[self.word : after]
        self.word = after

    def take_escapes(self, symbols: Array) -> None:
        escaped = np.flatnonzero(symbols == ESCAPE)
        symbols[escaped] = self.escapes[self.escape : self.escape + escaped.size]
        self.escape += escaped.size

    def run(self, context_C: Array, rows: int) -> Array:
        """Decode the next rows, int16 [rows, C]."""
        base = np.tile(context_C.astype(np.int64) * SLOTS, rows)
        whole = base.size - base.size % self.lanes
        for index in base[:whole].reshape(-1, self.lanes):
            self.advance(index)
        self.advance(base[whole:])
        symbols = self.flat_symbol.take(base)
        self.take_escapes(symbols)
        return symbols.reshape(rows, -1)

    def run_trellis(self, context_C: Array, rows: int, state_C: Array) -> tuple[Array, Array]:
        """Decode rows of trellis-coded symbols and the states' lowest bits, both [rows, C]; advance ``state_C``."""
        base = np.tile(context_C.astype(np.int64) * SLOTS, rows)
        column = np.tile(np.arange(context_C.size), rows)
        symbols, z = np.empty(base.size, np.int16), np.empty(base.size, np.int64)
        for at in range(0, base.size, self.lanes):
            cols = column[at : at + self.lanes]
            state = state_C[cols]
            bit = z[at : at + cols.size]
            bit[:] = state & 1
            index = base[at : at + cols.size]
            index += bit * SLOTS
            self.advance(index)
            found = self.flat_symbol.take(index)
            self.take_escapes(found)
            symbols[at : at + cols.size] = found
            state_C[cols] = (state >> 1) ^ self.masks[(2 * found + bit) & 3]
        return symbols.reshape(rows, -1), z.reshape(rows, -1)


def static(coded: bytes, params: bytes, bits: int, trellis: int, matrices: list[tuple[int, int]]) -> Array:
    """Decode a chunk of codec 4: stored tables, a stored class for each column."""
    lanes_log2, classes_log2 = params
    per_class = 2 if trellis else 1
    r, tables = Cursor(coded), []
    for _ in range(per_class << classes_log2):
        freq, first, n = np.zeros(1 << bits, np.int64), r.u8(), r.u8() + 1
        freq[first : first + n] = [r.varint() for _ in range(n)]
        tables.append(freq)
    columns = sum(cols for _, cols in matrices)
    packed = np.frombuffer(r.take((columns * classes_log2 + 7) // 8), np.uint8)
    flags = np.unpackbits(packed, bitorder="little")[: columns * classes_log2].reshape(columns, classes_log2)
    context = per_class * (flags @ (1 << np.arange(classes_log2)))
    lanes = Lanes(coded[r.at :], lanes_log2, bits, trellis, len(tables))
    for i, freq in enumerate(tables):
        lanes.set_table(i, freq)
    out = []
    for rows, cols in matrices:
        state_C, context_C, context = np.zeros(cols, np.uint8), context[:cols], context[cols:]
        block = max(1, (1 << 16) // cols) * lanes.lanes  # whole steps at a time
        for row in range(0, rows, block):
            n = min(block, rows - row)
            symbols = lanes.run_trellis(context_C, n, state_C)[0] if trellis else lanes.run(context_C, n)
            out.append(symbols.astype(np.int8).reshape(-1))
    return np.concatenate(out)


def adaptive(
    coded: bytes, params: bytes, bits: int, trellis: int, matrices: list[tuple[int, int]], lanes_of: Any = Lanes
) -> Array:
    """Decode a chunk of codec 5: tables and column magnitudes are learned from the blocks before.

    ``lanes_of`` makes the lanes; an encoder gives a class of its own that knows the symbols.
    """
    lanes_log2, prior_log2, shift = params
    mean, prior, per_class = int.from_bytes(coded[:2], "little"), 1 << prior_log2, 2 if trellis else 1
    contexts = per_class * len(THRESHOLDS)
    lanes = lanes_of(coded[2:], lanes_log2, bits, trellis, contexts)
    counts = np.zeros((contexts, 1 << bits), np.int64)
    total, built = np.zeros(contexts, np.int64), np.zeros(contexts, np.int64)
    out = []
    for all_rows, cols in matrices:
        sum_C, state_C = np.zeros(cols, np.int64), np.zeros(cols, np.uint8)
        row, growth = 0, 1
        while row < all_rows:
            rows = min(all_rows - row, growth, max(1, 4096 // cols))
            means = (128 * sum_C + prior * mean) // (row + prior)
            context_C = per_class * (np.searchsorted(THRESHOLDS, means, "right") >> shift)
            used = (np.unique(context_C)[:, None] + np.arange(per_class)).reshape(-1)
            for context in used.tolist():
                if not total[context]:
                    counts[context] = first_counts(context // per_class, context % per_class, shift, bits)
                    total[context] = counts[context].sum()
                if 16 * total[context] > 17 * built[context]:
                    lanes.set_table(context, frequencies(counts[context], total[context]))
                    built[context] = total[context]
            z: Any = 0
            if trellis:
                symbols, z = lanes.run_trellis(context_C, rows, state_C)
            else:
                symbols = lanes.run(context_C, rows)
            out.append(symbols.astype(np.int8).reshape(-1))
            seen = ((np.searchsorted(used, context_C) + z) << bits) + symbols + lanes.half
            seen = 16 * np.bincount(seen.reshape(-1), minlength=used.size << bits).reshape(used.size, -1)
            counts[used] += seen
            total[used] += seen.sum(1)
            for context in used[total[used] >= 1 << 22].tolist():
                while total[context] >= 1 << 22:
                    counts[context] >>= 1
                    total[context] = counts[context].sum()
                    built[context] = 0
            sum_C += np.abs(2 * symbols.astype(np.int64) + z).sum(0)
            row, growth = row + rows, min(2 * growth, 4096)
            mean = 128 * int(sum_C.sum()) // (row * cols)
    return np.concatenate(out)


def first_counts(column_class: int, z: int, shift: int, bits: int) -> Array:
    """Return the counts that a class starts from: 128 symbols of a Gaussian of its mean magnitude."""
    mean = int(THRESHOLDS[min((column_class << shift) + (1 << shift) // 2, len(THRESHOLDS) - 1)])
    u = np.abs(2 * (np.arange(1 << bits) - (1 << bits - 1)) + z)
    t = u * u * 1926128 // (mean * mean)
    bell = np.where(t >> 8 < 10, (512 - (t & 255)) >> np.minimum(t >> 8, 10), 0) + (u <= 1)
    counts: Array = 2048 * bell // bell.sum()
    return counts


def frequencies(counts: Array, total: int) -> Array:
    """Scale counts to 2^14 less the escape's share; what rounding leaves goes to the most frequent symbol."""
    freq = counts * (SLOTS - 8) // total
    rare = freq == 0
    escape = max(1, int(counts[rare].sum()) * SLOTS // int(total)) if rare.any() else 0
    freq[np.argmax(freq)] += SLOTS - escape - freq.sum()
    return freq


class Cursor:
    """A reader of the integers of directory and tables, one after the other."""

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


def unzstd(frame: bytes, n: int) -> bytes:
    """Decompress a zstd frame that lacks its magic bytes."""
    return zstandard.ZstdDecompressor(format=zstandard.FORMAT_ZSTD1_MAGICLESS).decompress(frame, max_output_size=n)


def crc32c(data: bytes) -> int:
    """Return the CRC-32C of data, 1024 columns at once: the register is linear, and zeros in front change nothing."""
    head = (bytes(255 - byte for byte in data[:4]) + data[4:]) if len(data) >= 4 else b""
    columns = np.frombuffer(bytes(-len(head) % 1024) + head, np.uint8).reshape(-1, 1024)
    r = np.zeros(1024, np.uint32)
    for row in columns:
        r = row ^ ROW[0][r & 255] ^ ROW[1][r >> 8 & 255] ^ ROW[2][r >> 16 & 255] ^ ROW[3][r >> 24]
    # A register that starts with all bits set is one that starts with none and meets four inverted bytes.
    crc, rest = (0, r.tolist()) if head else (0xFFFFFFFF, data)
    for value in rest:
        crc ^= value
        crc = crc >> 8 ^ int(BYTE[crc & 255])
    return crc ^ 0xFFFFFFFF


def crc_tables() -> tuple[Array, Array]:
    """Return tables of the register after one more byte, and after 1024 zero bytes for each byte of it."""
    byte: Array = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        byte = byte >> 1 ^ (byte & 1) * np.uint32(0x82F63B78)
    row = np.arange(256, dtype=np.uint32) << np.array([[0], [8], [16], [24]], np.uint32)
    for _ in range(1024):
        row = row >> 8 ^ byte[row & 255]
    return byte, row


BYTE, ROW = crc_tables()
