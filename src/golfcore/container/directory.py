"""Write and parse the directory of a container: manifest, chunks and their tensors (docs/reference/formats.md, 3)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from golfcore.container import manifest as manifest_json
from golfcore.container.codecs import CODECS, Layout
from golfcore.container.tensors import (
    MAX_DIM,
    MAX_NAME,
    MAX_NDIM,
    MAX_TENSORS,
    Kind,
    name_problem,
    role_problem,
    shape_problem,
)
from golfcore.container.wire import MAX_VARINT, Reader, varint

MAX_DIRECTORY = 1 << 23  # bytes, raw


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor as the directory describes it; ``offset`` is in its chunk's decoded bytes."""

    name: str
    role: str
    kind: Kind
    shape: tuple[int, ...]
    chunk: int
    offset: int

    @property
    def bits(self) -> int:
        """Bits per symbol, 0 for a plain array."""
        return self.kind.bits

    @property
    def trellis(self) -> int:
        """Bits of trellis state, 0 for plain symbols."""
        return self.kind.trellis

    @property
    def dtype(self) -> str:
        return self.kind.dtype

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes when decoded."""
        return self.size * self.kind.itemsize


@dataclass(frozen=True)
class ChunkInfo:
    """A chunk as the directory describes it; ``offset`` is in the payload."""

    role: str
    layout: Layout
    codec: int
    params: bytes
    coded_len: int
    crc32c: int
    offset: int


@dataclass(frozen=True)
class Directory:
    """The content of a container but for the coded bytes. Tensors stand in chunk order."""

    manifest: dict[str, Any]
    chunks: tuple[ChunkInfo, ...]
    tensors: tuple[TensorInfo, ...]


def to_bytes(manifest: Mapping[str, Any], chunks: Sequence[ChunkInfo], names: Sequence[str]) -> bytes:
    """Return the raw directory; ``names`` are the names of all tensors, in chunk order."""
    text = manifest_json.to_bytes(manifest)
    out = [varint(len(text)), text, varint(len(chunks))]
    for chunk in chunks:
        role = chunk.role.encode()
        out += [
            bytes((chunk.codec, chunk.layout.kind.code, len(role))), role, varint(len(chunk.layout.shapes)),
            varint(chunk.coded_len), bytes((len(chunk.params),)), chunk.params, chunk.crc32c.to_bytes(4, "little"),
        ]  # fmt: skip
    for before, name in pairwise([b"", *(name.encode() for name in names)]):
        shared = shared_prefix(before, name)
        out += [bytes((shared, len(name) - shared)), name[shared:]]
    for chunk in chunks:
        for shape in chunk.layout.shapes:
            out += [bytes((len(shape),)), *map(varint, shape)]
    return b"".join(out)


def from_bytes(data: bytes, where: str) -> Directory:
    """Parse a raw directory of untrusted bytes.

    Raises:
        FormatError: a rule of the format is broken; the message has the byte in the raw directory.
    """
    reader = Reader(data, where)
    manifest = _read_manifest(reader)
    heads = _read_chunk_heads(reader)
    counts = [head.tensors for head in heads]
    if sum(counts) > MAX_TENSORS:
        raise reader.fail(f"{sum(counts)} tensors, expected at most {MAX_TENSORS}")
    names = _read_names(reader, sum(counts))

    chunks: list[ChunkInfo] = []
    tensors: list[TensorInfo] = []
    for head in heads:
        first, raw_offset, shapes = len(tensors), 0, []
        for name in names[first : first + head.tensors]:
            shapes.append(_read_shape(reader, head.kind, name))
            tensors.append(TensorInfo(name, head.role, head.kind, shapes[-1], len(chunks), raw_offset))
            raw_offset += tensors[-1].nbytes
        layout = Layout(head.kind, tuple(shapes))
        if head.coded_len > layout.raw_len:
            raise reader.fail(
                f"chunk {len(chunks)} (tensor {names[first]!r}): {head.coded_len} coded bytes for {layout.raw_len} raw"
                " ones; codec 0 is never larger"
            )
        offset = chunks[-1].offset + chunks[-1].coded_len if chunks else 0
        chunks.append(ChunkInfo(head.role, layout, head.codec, head.params, head.coded_len, head.crc32c, offset))
    reader.end()
    return Directory(manifest, tuple(chunks), tuple(tensors))


@dataclass(frozen=True, slots=True)
class _ChunkHead:
    codec: int
    kind: Kind
    role: str
    tensors: int
    coded_len: int
    params: bytes
    crc32c: int


def _read_manifest(reader: Reader) -> dict[str, Any]:
    n = reader.varint("length of the manifest", 0, manifest_json.MAX_MANIFEST)
    start = reader.position
    text = reader.take(n, "the manifest")
    try:
        return manifest_json.from_bytes(text)
    except manifest_json.ManifestError as error:
        raise reader.fail(f"manifest: {error}", start) from error


def _read_chunk_heads(reader: Reader) -> list[_ChunkHead]:
    heads = []
    for i in range(reader.varint("number of chunks", 0, MAX_TENSORS)):
        start = reader.position
        codec = reader.u8(f"codec of chunk {i}")
        if codec not in CODECS:
            raise reader.fail(f"chunk {i} has the unknown codec {codec}; written by a newer golfcore", start)
        code = reader.u8(f"kind of chunk {i}")
        kind = Kind.from_code(code)
        if kind is None:
            raise reader.fail(f"chunk {i} has the unknown kind 0x{code:02x}", start + 1)
        role = reader.take(reader.u8(f"length of the role of chunk {i}"), f"role of chunk {i}").decode("latin-1")
        if problem := role_problem(role):
            raise reader.fail(f"chunk {i} has the {problem}", start + 2)
        tensors = reader.varint(f"number of tensors of chunk {i}", 1, MAX_TENSORS)
        coded_len = reader.varint(f"coded length of chunk {i}", 0, MAX_VARINT)
        params = reader.take(reader.u8(f"length of the parameters of chunk {i}"), f"parameters of chunk {i}")
        heads.append(_ChunkHead(codec, kind, role, tensors, coded_len, params, reader.u32(f"checksum of chunk {i}")))
    return heads


def _read_names(reader: Reader, n: int) -> list[str]:
    names: list[str] = []
    seen: set[str] = set()
    name = b""
    for i in range(n):
        start = reader.position
        shared = reader.u8(f"shared prefix of the name of tensor {i}")
        suffix = reader.take(reader.u8(f"length of the name of tensor {i}"), f"name of tensor {i}")
        if shared != shared_prefix(name, name[:shared] + suffix):
            raise reader.fail(f"the name of tensor {i} does not share just {shared} bytes with the one before", start)
        name = name[:shared] + suffix
        if problem := name_problem(name):
            raise reader.fail(f"tensor {i} has {problem}", start)
        names.append(name.decode())
        if names[-1] in seen:
            raise reader.fail(f"tensor {i} has the name {names[-1]!r} of an earlier one", start)
        seen.add(names[-1])
    return names


def _read_shape(reader: Reader, kind: Kind, name: str) -> tuple[int, ...]:
    start = reader.position
    ndim = reader.u8(f"number of dimensions of tensor {name!r}")
    if ndim > MAX_NDIM:
        raise reader.fail(f"tensor {name!r} has {ndim} dimensions, expected at most {MAX_NDIM}", start)
    shape = tuple(reader.varint(f"dimension {i} of tensor {name!r}", 0, MAX_DIM) for i in range(ndim))
    if problem := shape_problem(shape, kind.itemsize):
        raise reader.fail(f"tensor {name!r}: {problem}", start)
    return shape


def shared_prefix(a: bytes, b: bytes) -> int:
    """Return how many bytes both names share at their start; at most 255, the longest name."""
    n = 0
    for x, y in zip(a[:MAX_NAME], b, strict=False):
        if x != y:
            break
        n += 1
    return n
