"""Write and read ``val_text.zst``: the exact bytes of the validation documents, which a score is counted on.

One zstd frame with content size and checksum. Inside, little-endian: the 8 bytes ``GOLFTXT1``, uint64 count, count
uint64 lengths, then the documents end to end.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import zstandard

from golfcore.errors import FormatError, InputError
from golfcore.paths import atomic_write

MAX_BYTES = 2 << 30
_MAGIC = b"GOLFTXT1"
_PREFIX = len(_MAGIC) + 8
_MOST = 1 << 15  # bytes that one byte of zstd can stand for: a block of 4 stands for 128 KiB at most


def write_val_text(path: Path, documents: Sequence[bytes]) -> None:
    """Write the documents atomically; the file depends on nothing but them and zstd's version.

    Raises:
        InputError: more than 2 GiB of text, or the disk is full.
    """
    lengths = np.array([len(d) for d in documents], dtype="<u8")
    plain = b"".join((_MAGIC, len(documents).to_bytes(8, "little"), lengths.tobytes(), *documents))
    if len(plain) > MAX_BYTES:
        raise InputError(
            f"{sum(map(len, documents)):,} bytes of validation text, at most 2 GiB are supported; "
            "use a smaller --val-fraction"
        )
    with atomic_write(path) as f:
        f.write(zstandard.ZstdCompressor(level=12, write_checksum=True).compress(plain))


def read_val_text(path: Path) -> list[bytes]:
    """Read the documents that ``write_val_text`` wrote.

    Raises:
        FormatError: the file is damaged, or claims more than 2 GiB.
        InputError: it cannot be read.
    """
    try:
        packed = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        size = zstandard.frame_content_size(packed)
        most = min(MAX_BYTES, _MOST * len(packed))  # or a few bytes could claim all memory
        if not _PREFIX <= size <= most:
            raise FormatError(f"{path}: claims {size} bytes of text, expected {_PREFIX} to {most}")
        plain = zstandard.ZstdDecompressor().decompress(packed, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise FormatError(f"{path}: damaged ({error}); prepare the data again") from error
    if plain[: len(_MAGIC)] != _MAGIC:
        raise FormatError(f"{path}: starts with {plain[: len(_MAGIC)]!r}, expected {_MAGIC!r}")
    count = int.from_bytes(plain[len(_MAGIC) : _PREFIX], "little")
    text_at = _PREFIX + 8 * count
    if text_at > size:
        raise FormatError(f"{path}: claims {count} documents, too many for its {size} bytes")
    lengths = np.frombuffer(plain, dtype="<u8", count=count, offset=_PREFIX)
    # Python integers: hostile lengths may not wrap around.
    ends = [text_at]
    for length in lengths.tolist():
        ends.append(ends[-1] + length)
    if ends[-1] != size:
        raise FormatError(f"{path}: document lengths end at byte {ends[-1]}, the text at {size}")
    return [plain[a:b] for a, b in pairwise(ends)]
