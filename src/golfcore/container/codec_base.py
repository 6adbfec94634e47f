"""What a codec is, and what it sees of a chunk."""

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

    @functools.cached_property
    def matrices(self) -> tuple[tuple[int, int], ...]:
        """(rows, columns) of the tensors that are not empty; columns are the last dimension, of a vector 1."""
        return tuple(_matrix(shape) for shape in self.shapes if math.prod(shape))


class Codec(Protocol):
    """One way to code a chunk. Pure functions of their arguments: equal input gives equal bytes on every machine."""

    @property
    def id(self) -> int: ...

    @property
    def name(self) -> str: ...

    def params(self, layout: Layout) -> Iterable[bytes]:
        """The parameters the encoder tries for a chunk (at most 255 bytes each); none where the codec has no use."""

    def encode(self, raw: bytes, layout: Layout, params: bytes) -> bytes | None:
        """Codes ``layout.raw_len`` bytes; None where the codec cannot code these values."""

    def decode(self, coded: bytes, layout: Layout, params: bytes) -> bytes:
        """The inverse, for untrusted ``coded`` and ``params``; allocates in proportion to ``layout.raw_len``.

        Raises:
            CodecError: ``coded`` or ``params`` is not something ``encode`` writes.
        """


def no_params(params: bytes) -> None:
    """Refuses parameters of a codec that has none."""
    if params:
        raise CodecError(f"{len(params)} bytes of codec parameters, expected none")


def _matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    return (math.prod(shape[:-1]), shape[-1]) if len(shape) > 1 else (math.prod(shape), 1)
