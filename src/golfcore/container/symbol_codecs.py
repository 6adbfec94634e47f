"""Codecs for quantized symbols (bit-packing, base 3, rANS, binary decisions) and for scales on a log grid."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from golfcore import _core
from golfcore.container import grid
from golfcore.container.codec_base import CodecError, Layout, no_params
from golfcore.container.tensors import Kind

MAX_LANES_LOG2: int = _core.ENTROPY_MAX_LANES_LOG2
MAX_COLUMNS: int = _core.ENTROPY_MAX_COLUMNS
_BLOCK = 1 << 20  # symbols that are packed at once
# log2 of a prior's rows and width of classes: for columns that differ, columns that differ widely, few weights, and
# columns that are alike.
_COLUMNS = ((5, 0), (3, 0), (4, 1), (15, 2))
_FEW_LANES_LOG2 = 2  # enough for the compiled decoder to work on several at once
_POWERS = np.array([1, 3, 9, 27, 81], np.uint8)


class BitPack:
    """A codec that packs symbols as unsigned numbers of the kind's bits, the lowest bit first."""

    id = 1
    name = "bitpack"

    def params(self, layout: Layout) -> Iterable[bytes]:
        return (b"",) if layout.raw_len and 0 < layout.kind.bits < 8 else ()

    def encode(self, raw: bytes, layout: Layout, params: bytes) -> bytes:
        bits = layout.kind.bits
        symbols = np.frombuffer(raw, np.uint8) + np.uint8(1 << (bits - 1))
        parts = (symbols[i : i + _BLOCK, None] for i in range(0, symbols.size, _BLOCK))
        return b"".join(
            np.packbits(np.unpackbits(part, axis=1, count=bits, bitorder="little"), bitorder="little").tobytes()
            for part in parts
        )

    def decode(self, coded: bytes, layout: Layout, params: bytes) -> bytes:
        no_params(params)
        bits, n = layout.kind.bits, layout.raw_len
        if not 0 < bits < 8 or len(coded) != (n * bits + 7) // 8:
            raise CodecError(f"{len(coded)} packed bytes, expected {(n * bits + 7) // 8} for symbols of {bits} bits")
        if n * bits % 8 and coded[-1] >> n * bits % 8:
            raise CodecError("bits are set after the last packed symbol")
        packed = np.frombuffer(coded, np.uint8)
        symbols = np.empty(n, np.uint8)
        for i in range(0, n, _BLOCK):
            count = min(_BLOCK, n - i)
            flat = np.unpackbits(packed[i * bits // 8 :], count=count * bits, bitorder="little")
            symbols[i : i + count] = np.packbits(flat.reshape(count, bits), axis=1, bitorder="little")[:, 0]
        return (symbols - np.uint8(1 << (bits - 1))).tobytes()


class Base3:
    """A codec that packs five symbols of -1, 0 and 1 into a byte."""

    id = 6
    name = "base3"

    def params(self, layout: Layout) -> Iterable[bytes]:
        return (b"",) if layout.raw_len and layout.kind.bits == 2 else ()

    def encode(self, raw: bytes, layout: Layout, params: bytes) -> bytes | None:
        digits = np.frombuffer(raw, np.uint8) + np.uint8(1)
        if digits.max() > 2:
            return None
        padded = np.zeros(-(-digits.size // 5) * 5, np.uint8)
        padded[: digits.size] = digits
        return (padded.reshape(-1, 5) @ _POWERS).astype(np.uint8).tobytes()

    def decode(self, coded: bytes, layout: Layout, params: bytes) -> bytes:
        no_params(params)
        n = layout.raw_len
        if layout.kind.bits != 2 or len(coded) != -(-n // 5):
            raise CodecError(f"{len(coded)} bytes of base-3 symbols, expected {-(-n // 5)} and two-bit symbols")
        packed = np.frombuffer(coded, np.uint8)
        digits = (packed[:, None] // _POWERS % 3).reshape(-1)
        if (packed > 242).any() or digits[n:].any():
            raise CodecError("base-3 bytes above 242, or digits after the last symbol")
        return (digits[:n] - np.uint8(1)).tobytes()


class _EntropyCodec:
    """The calls of the compiled coders, which three codecs share.

    Attributes:
        _functions: encoder and decoder: (bytes, shapes, bits, bits of trellis state, *parameters) -> bytes.
        _parameters: the number of parameters, one byte each.
    """

    _functions: tuple[Callable[..., bytes], Callable[..., bytes]]
    _parameters: int

    def encode(self, raw: bytes, layout: Layout, params: bytes) -> bytes:
        return self._functions[0](raw, _shapes(layout), layout.kind.bits, layout.kind.trellis, *params)

    def decode(self, coded: bytes, layout: Layout, params: bytes) -> bytes:
        _check(layout, params, self._parameters)
        try:
            return self._functions[1](coded, _shapes(layout), layout.kind.bits, layout.kind.trellis, *params)
        except ValueError as error:
            raise CodecError(str(error)) from error


class StaticRans(_EntropyCodec):
    """An rANS codec with stored tables, one per class of columns. Parameters: log2 of lanes, log2 of classes."""

    id = 4
    name = "rans"
    _functions = (_core.entropy_encode_static, _core.entropy_decode_static)
    _parameters = 2

    def params(self, layout: Layout) -> Iterable[bytes]:
        lanes = lanes_log2(layout)
        return () if lanes is None else tuple(bytes((lanes, classes)) for classes in (0, 2, 3))


class AdaptiveRans(_EntropyCodec):
    """An rANS codec that learns its tables. Parameters: log2 of lanes, log2 of a prior's rows, width of classes."""

    id = 5
    name = "adaptive"
    _functions = (_core.entropy_encode_adaptive, _core.entropy_decode_adaptive)
    _parameters = 3

    def params(self, layout: Layout) -> Iterable[bytes]:
        lanes = lanes_log2(layout)
        return () if lanes is None else tuple(bytes((lanes, *columns)) for columns in _COLUMNS)


class Binary(_EntropyCodec):
    """A binary arithmetic codec of yes-or-no decisions. Parameters: those of ``AdaptiveRans``.

    It saves a little against whole symbols and takes several steps per symbol, so only ``smallest`` tries it.
    """

    id = 9
    name = "binary"
    _functions = (_core.entropy_encode_binary, _core.entropy_decode_binary)
    _parameters = 3

    def params(self, layout: Layout) -> Iterable[bytes]:
        return ()


class LogGrid:
    """A codec of fp16 scales on the log grid: per tensor the median index, then distances by ``AdaptiveRans``."""

    id = 7
    name = "loggrid"
    _coder = AdaptiveRans()

    def params(self, layout: Layout) -> Iterable[bytes]:
        return (bytes((0, 15, 2)),) if layout.raw_len and layout.kind.dtype == "f16" else ()

    def encode(self, raw: bytes, layout: Layout, params: bytes) -> bytes | None:
        index = grid.to_index(np.frombuffer(raw, "<u2"))
        if index is None:
            return None
        sizes = [rows * cols for rows, cols in layout.matrices]
        medians = bytes(int(np.sort(part)[part.size // 2]) for part in np.split(index, np.cumsum(sizes)[:-1]))
        distances = (index - np.repeat(np.frombuffer(medians, np.uint8), sizes)).tobytes()
        return medians + self._coder.encode(distances, _columns(layout), params)

    def decode(self, coded: bytes, layout: Layout, params: bytes) -> bytes:
        if layout.kind.dtype != "f16" or len(coded) < len(layout.matrices):
            raise CodecError(f"{len(coded)} bytes of grid indices of kind {layout.kind.label}, expected f16")
        medians = np.frombuffer(coded, np.uint8, len(layout.matrices))
        distances = self._coder.decode(coded[len(medians) :], _columns(layout), params)
        index = np.frombuffer(distances, np.uint8) + np.repeat(medians, [r * c for r, c in layout.matrices])
        if (index >= grid.SIZE).any():
            raise CodecError(f"grid index {int(index.max())}, expected at most {grid.SIZE - 1}")
        return grid.from_index(index).astype("<u2").tobytes()


def lanes_log2(layout: Layout) -> int | None:
    """Return log2 of the number of lanes that the encoder uses, or None if the entropy coders do not apply.

    A decoder in numpy takes one step for all lanes of a chunk at once, and a lane costs three bytes. For a given number
    of bytes, lanes that grow with the root of the weights need the fewest steps per file. In small chunks bytes count
    for more than steps.
    With a trellis, a step must not meet a column twice.
    """
    if not layout.kind.bits or not layout.raw_len or max(cols for _, cols in layout.matrices) > MAX_COLUMNS:
        return None
    weights_log2 = layout.raw_len.bit_length() - 1
    lanes = max(0, min(weights_log2 - 13, weights_log2 // 2 - 4, MAX_LANES_LOG2))
    if layout.kind.trellis:
        lanes = min(lanes, min(cols for _, cols in layout.matrices).bit_length() - 1)
    return lanes


def smallest(layout: Layout) -> list[tuple[int, bytes]]:
    """Return further (codec id, params) to try if bytes count for more than the time of decoding.

    Lanes cost bytes: rANS is tried with few of them, binary decisions with more only if their bytes do not matter.
    """
    most = lanes_log2(layout)
    if most is None:
        return []
    few = min(most, _FEW_LANES_LOG2)
    tried = [(StaticRans.id, bytes((few, classes))) for classes in (0, 2, 3)]
    tried += [(AdaptiveRans.id, bytes((few, *columns))) for columns in _COLUMNS]
    if layout.kind.bits > 1:
        lanes = max(min(few, 2), min(layout.raw_len.bit_length() - 18, 6))
        tried += [(Binary.id, bytes((lanes, *columns))) for columns in _COLUMNS]
    return tried


def _check(layout: Layout, params: bytes, expected: int) -> None:
    if not layout.kind.bits or not layout.raw_len or len(params) != expected:
        raise CodecError(
            f"{len(params)} bytes of parameters for kind {layout.kind.label}, expected {expected} for symbols"
        )


def _shapes(layout: Layout) -> npt.NDArray[np.uint64]:
    return np.array(layout.matrices, np.uint64)


def _columns(layout: Layout) -> Layout:
    """Return the layout of eight-bit distances, each tensor as one column."""
    return Layout(Kind("i8", 8), tuple((rows * cols,) for rows, cols in layout.matrices))
