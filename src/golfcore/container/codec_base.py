"""The interface of a codec (one way to code a chunk of bytes), and the facts that it gets about a chunk."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from golfcore.container.tensors import Kind

Coder = Literal["fast", "smallest"]
"""How chunks are coded: as small as fast decoders allow, or in as few bytes as can be."""


class CodecError(ValueError):
    """Raised for coded bytes that a codec refuses; the container adds the tensor and the offset."""


@dataclass(frozen=True)
class Layout:
    """Facts about a chunk that are known before it is decoded."""

    kind: Kind
    shapes: tuple[tuple[int, ...], ...]

    @functools.cached_property
    def raw_len(self) -> int:
        """Bytes of the chunk when decoded."""
        return sum(map(math.prod, self.shapes)) * self.kind.itemsize

    @functools.cached_property
    def matrices(self) -> tuple[tuple[int, int], ...]:
        """(rows, columns) of each tensor that is not empty; columns are the last dimension, or 1 for a vector."""
        return tuple(_matrix(shape) for shape in self.shapes if math.prod(shape))


class Codec(Protocol):
    """One way to code a chunk. Its methods are pure functions: equal input gives equal bytes on every machine."""

    @property
    def id(self) -> int: ...

    @property
    def name(self) -> str: ...

    def params(self, layout: Layout) -> Iterable[bytes]:
        """Return the parameters that the encoder tries for a chunk, at most 255 bytes each; none to skip the codec."""

    def encode(self, raw: bytes, layout: Layout, params: bytes) -> bytes | None:
        """Code ``layout.raw_len`` bytes; return None if the codec cannot code these values."""

    def decode(self, coded: bytes, layout: Layout, params: bytes) -> bytes:
        """Decode untrusted ``coded`` bytes with ``params``; memory stays in proportion to ``layout.raw_len``.

        Raises:
            CodecError: ``encode`` would not write such ``coded`` or ``params``.
        """


def no_params(params: bytes) -> None:
    """Raise CodecError if there are parameters, for a codec that has none."""
    if params:
        raise CodecError(f"{len(params)} bytes of codec parameters, expected none")


def _matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    return (math.prod(shape[:-1]), shape[-1]) if len(shape) > 1 else (math.prod(shape), 1)
