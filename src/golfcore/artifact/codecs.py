"""How a chunk's bytes are coded. A codec is one class and one row of ``CODECS``; its id is part of the format.

A chunk is all tensors of one role and kind, concatenated in C order, little-endian. A codec sees the kind and the
shapes (``Layout``), so an adaptive one can learn once for a whole role and still know its rows and columns.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import zstandard

from golfcore.artifact.tensors import Kind

ZSTD_LEVEL = 19
MAX_WINDOW = 1 << 27


class CodecError(ValueError):
    """Coded bytes that a codec refuses; the container adds the tensor and the offset."""


@dataclass(frozen=True)
class Layout:
    """What is known of a chunk before it is decoded."""

    kind: Kind
    shapes: tuple[tuple[int, ...], ...]

    @functools.cached_property
    def raw_len(self) -> int:
        """Bytes of the chunk when decoded."""
        return sum(map(math.prod, self.shapes)) * self.kind.itemsize


class Codec(Protocol):
    """One way to code a chunk. Pure functions of their arguments: equal input gives equal bytes on every machine."""

    @property
    def id(self) -> int: ...

    @property
    def name(self) -> str: ...

    def params(self, layout: Layout) -> Iterable[bytes]:
        """The parameters the encoder tries for a chunk (at most 255 bytes each); none where the codec has no use."""

    def encode(self, raw: bytes, layout: Layout, params: bytes) -> bytes:
        """Codes ``layout.raw_len`` bytes."""

    def decode(self, coded: bytes, layout: Layout, params: bytes) -> bytes:
        """The inverse, for untrusted ``coded`` and ``params``; allocates in proportion to ``layout.raw_len``.

        Raises:
            CodecError: ``coded`` or ``params`` is not something ``encode`` writes.
        """


class Raw:
    """The bytes themselves."""

    id = 0
    name = "raw"

    def params(self, layout: Layout) -> Iterable[bytes]:
        return (b"",)

    def encode(self, raw: bytes, layout: Layout, params: bytes) -> bytes:
        return raw

    def decode(self, coded: bytes, layout: Layout, params: bytes) -> bytes:
        _no_params(params)
        if len(coded) != layout.raw_len:
            raise CodecError(f"{len(coded)} raw bytes, expected {layout.raw_len}")
        return coded


class Zstd:
    """One magicless zstd frame."""

    id = 2
    name = "zstd"

    def params(self, layout: Layout) -> Iterable[bytes]:
        return (b"",) if layout.raw_len else ()

    def encode(self, raw: bytes, layout: Layout, params: bytes) -> bytes:
        return zstd_compress(raw)

    def decode(self, coded: bytes, layout: Layout, params: bytes) -> bytes:
        _no_params(params)
        return zstd_decompress(coded, layout.raw_len)


class ShuffleZstd:
    """The first bytes of all elements, then the second bytes, ...; then one magicless zstd frame."""

    id = 3
    name = "shuffle"

    def params(self, layout: Layout) -> Iterable[bytes]:
        return (b"",) if layout.raw_len and layout.kind.itemsize > 1 else ()

    def encode(self, raw: bytes, layout: Layout, params: bytes) -> bytes:
        return zstd_compress(np.frombuffer(raw, np.uint8).reshape(-1, layout.kind.itemsize).T.tobytes())

    def decode(self, coded: bytes, layout: Layout, params: bytes) -> bytes:
        _no_params(params)
        if layout.kind.itemsize == 1:
            raise CodecError("shuffle of one-byte elements")
        planes = zstd_decompress(coded, layout.raw_len)
        return np.frombuffer(planes, np.uint8).reshape(layout.kind.itemsize, -1).T.tobytes()


CODECS: dict[int, Codec] = {codec.id: codec for codec in (Raw(), Zstd(), ShuffleZstd())}


def encode_smallest(raw: bytes, layout: Layout) -> tuple[int, bytes, bytes]:
    """The smallest coding of a chunk as (codec id, params, coded); among equals the lowest id, then first params."""
    tries = (
        (codec.id, params, codec.encode(raw, layout, params))
        for codec in sorted(CODECS.values(), key=lambda codec: codec.id)
        for params in codec.params(layout)
    )
    return min(tries, key=lambda attempt: len(attempt[1]) + len(attempt[2]))


def zstd_compress(data: bytes) -> bytes:
    """One magicless frame at level 19: no content size, checksum or dictionary; window fitted to ``data``."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        ZSTD_LEVEL,
        source_size=len(data),
        format=zstandard.FORMAT_ZSTD1_MAGICLESS,
        write_content_size=0,
        write_checksum=0,
        write_dict_id=0,
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compress(data)


def zstd_decompress(frame: bytes, raw_len: int) -> bytes:
    """Exactly ``raw_len`` > 0 bytes from one frame as ``zstd_compress`` writes it.

    The frame header is read here first, because zstandard would allocate whatever content size a frame claims.

    Raises:
        CodecError: another frame header, a window larger than ``raw_len`` needs, damage, or another length.
    """
    if len(frame) < 2 or frame[0] != 0:
        raise CodecError("not a magicless zstd frame without content size, checksum and dictionary")
    exponent, mantissa = frame[1] >> 3, frame[1] & 7
    window = (8 + mantissa) << (exponent + 7)
    allowed = min(MAX_WINDOW, max(1 << 10, 1 << (raw_len - 1).bit_length()))
    if window > allowed:
        raise CodecError(f"zstd window of {window} bytes, expected at most {allowed} for {raw_len} bytes")
    decompressor = zstandard.ZstdDecompressor(format=zstandard.FORMAT_ZSTD1_MAGICLESS, max_window_size=MAX_WINDOW)
    try:
        data = decompressor.decompress(frame, max_output_size=raw_len, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise CodecError(str(error)) from error
    if len(data) != raw_len:
        raise CodecError(f"zstd frame of {len(data)} bytes, expected {raw_len}")
    return data


def _no_params(params: bytes) -> None:
    if params:
        raise CodecError(f"{len(params)} bytes of codec parameters, expected none")
