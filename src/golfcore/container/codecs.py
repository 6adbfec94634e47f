"""The list of codecs. A codec is one class and one entry of ``CODECS``; its id is part of the format.

A chunk is all tensors of one role and kind, concatenated in C order, little-endian. A codec sees the kind and the
shapes (``Layout``), so an adaptive codec can learn once for a whole role and still know rows and columns.
"""

from __future__ import annotations

from golfcore.container.codec_base import Codec, CodecError, Coder, Layout
from golfcore.container.generic_codecs import Lzma, Raw, ShuffleZstd, Zstd, zstd_compress, zstd_decompress
from golfcore.container.symbol_codecs import AdaptiveRans, Base3, Binary, BitPack, LogGrid, StaticRans, smallest

__all__ = [
    "CODECS", "Attempt", "Codec", "CodecError", "Coder", "Layout", "attempt", "attempts", "zstd_compress",
    "zstd_decompress",
]  # fmt: skip

CODECS: dict[int, Codec] = {
    codec.id: codec
    for codec in (
        Raw(), BitPack(), Zstd(), ShuffleZstd(), StaticRans(), AdaptiveRans(), Base3(), LogGrid(), Lzma(),
        Binary(),
    )
}  # fmt: skip

Attempt = tuple[int, bytes, bytes]
"""(codec id, params, coded)"""


def attempts(layout: Layout, coder: Coder = "fast") -> list[tuple[int, bytes]]:
    """Return the (codec id, params) that the encoder tries for a chunk; the first wins a tie."""
    tried = [(codec.id, params) for codec in CODECS.values() for params in codec.params(layout)]
    if coder == "smallest":
        tried += smallest(layout)
    return sorted(dict.fromkeys(tried), key=lambda one: one[0])


def attempt(raw: bytes, layout: Layout, codec: int, params: bytes) -> Attempt | None:
    """Code a chunk with one codec; return None if the codec cannot code its values."""
    coded = CODECS[codec].encode(raw, layout, params)
    return None if coded is None else (codec, params, coded)
