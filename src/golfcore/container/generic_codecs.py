"""Codecs for any bytes: raw, zstd, shuffled zstd and LZMA."""

from __future__ import annotations

import lzma
from collections.abc import Iterable

import numpy as np
import zstandard

from golfcore.container.codec_base import CodecError, Layout, no_params

ZSTD_LEVEL = 19
MAX_WINDOW = 1 << 27
MAX_SYMBOLS = 1 << 16  # more quantized symbols than this are not given to zstd


class Raw:
    """Codec 0: the bytes as they are."""

    id = 0
    name = "raw"

    def params(self, layout: Layout) -> Iterable[bytes]:
        return (b"",)

    def encode(self, raw: bytes, layout: Layout, params: bytes) -> bytes:
        return raw

    def decode(self, coded: bytes, layout: Layout, params: bytes) -> bytes:
        no_params(params)
        if len(coded) != layout.raw_len:
            raise CodecError(f"{len(coded)} raw bytes, expected {layout.raw_len}")
        return coded


class Zstd:
    """A codec that writes one zstd frame without its magic number."""

    id = 2
    name = "zstd"

    def params(self, layout: Layout) -> Iterable[bytes]:
        # Symbols of matrices are left to the entropy coders: zstd is half a percent to two percent worse, and slow.
        large = layout.kind.bits and layout.raw_len > MAX_SYMBOLS
        return (b"",) if layout.raw_len and not large else ()

    def encode(self, raw: bytes, layout: Layout, params: bytes) -> bytes:
        return zstd_compress(raw)

    def decode(self, coded: bytes, layout: Layout, params: bytes) -> bytes:
        no_params(params)
        return zstd_decompress(coded, layout.raw_len)


class ShuffleZstd:
    """A codec that puts the first bytes of all elements together, then the second bytes, ..., before zstd."""

    id = 3
    name = "shuffle"

    def params(self, layout: Layout) -> Iterable[bytes]:
        return (b"",) if layout.raw_len and layout.kind.itemsize > 1 else ()

    def encode(self, raw: bytes, layout: Layout, params: bytes) -> bytes:
        return zstd_compress(np.frombuffer(raw, np.uint8).reshape(-1, layout.kind.itemsize).T.tobytes())

    def decode(self, coded: bytes, layout: Layout, params: bytes) -> bytes:
        no_params(params)
        if layout.kind.itemsize == 1:
            raise CodecError("shuffle of one-byte elements")
        planes = zstd_decompress(coded, layout.raw_len)
        return np.frombuffer(planes, np.uint8).reshape(layout.kind.itemsize, -1).T.tobytes()


class Lzma:
    """A codec that writes one raw LZMA stream, for text: role ``code`` and other u8 tensors."""

    id = 8
    name = "lzma"

    def params(self, layout: Layout) -> Iterable[bytes]:
        # Literal context bits. No position bits: text has no alignment.
        return (b"\x02", b"\x03", b"\x04") if layout.raw_len and layout.kind.dtype == "u8" else ()

    def encode(self, raw: bytes, layout: Layout, params: bytes) -> bytes:
        return lzma.compress(raw, lzma.FORMAT_RAW, filters=self._filters(layout, params))

    def decode(self, coded: bytes, layout: Layout, params: bytes) -> bytes:
        if layout.kind.dtype != "u8" or not layout.raw_len:
            raise CodecError(f"lzma of {layout.raw_len} bytes of kind {layout.kind.label}, expected u8")
        decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=self._filters(layout, params))
        try:
            raw = decoder.decompress(coded, layout.raw_len + 1)
        except lzma.LZMAError as error:
            raise CodecError(str(error)) from error
        if len(raw) != layout.raw_len or decoder.unused_data or not decoder.eof:
            raise CodecError(f"lzma stream of other than {layout.raw_len} bytes, or bytes after it")
        return raw

    def _filters(self, layout: Layout, params: bytes) -> list[dict[str, int]]:
        if len(params) != 1 or params[0] > 4:
            raise CodecError(f"lzma parameters {params.hex()!r}, expected one byte of at most 4")
        window = max(1 << 12, min(MAX_WINDOW, 1 << (layout.raw_len - 1).bit_length()))
        return [{"id": lzma.FILTER_LZMA1, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": window, "lc": params[0],
                 "lp": 0, "pb": 0}]  # fmt: skip


def zstd_compress(data: bytes) -> bytes:
    """Compress into one frame at level 19 without magic number, content size, checksum or dictionary."""
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
    """Decompress exactly ``raw_len`` > 0 bytes from one frame as ``zstd_compress`` writes it.

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
