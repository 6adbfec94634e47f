"""Open a container file: check its directory and decode tensors on demand (docs/reference/formats.md).

    Header 24 | directory (one zstd frame) | chunks, back to back | trailer 8

Opening reads only the header and the directory; a tensor is decoded when it is asked for. A file is untrusted: nothing
in it is executed, and nothing is allocated before its length has been checked against the caller's limit.
"""

from __future__ import annotations

import io
import os
import stat
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

from golfcore import _core, machine
from golfcore.container import directory as directories
from golfcore.container.codecs import CODECS, CodecError, zstd_decompress
from golfcore.container.directory import MAX_DIRECTORY, TensorInfo
from golfcore.container.tensors import Array, symbol_problem
from golfcore.container.writing import (
    HEADER,
    MAGIC,
    MAJOR,
    TRAILER,
)
from golfcore.errors import FormatError, InputError
from golfcore.suggest import nearest

DEFAULT_LIMIT = 1 << 30
_DAMAGED = "the file is damaged: copy or download it again"


class Container:
    """An open container: the directory is read and checked, tensors are decoded on demand.

    Use it as a context manager. Several threads may read from one object.

    Attributes:
        path: path of the file, for messages.
        manifest: the manifest.
        tensors: the directory's entry of each tensor by name, in file order.
        chunks: the directory's entries of the chunks, in file order.
        minor: minor format version of the file.
        directory_raw, directory_coded, payload_len, file_len: sizes in bytes.
        directory_crc32c: checksum over header and directory, as stored.
    """

    def __init__(self, source: BinaryIO, path: str, limit: int = DEFAULT_LIMIT) -> None:
        """Read from a seekable ``source`` and take ownership of it; see ``open`` and ``from_bytes``."""
        self.path = path
        self._source = source
        self._lock = threading.Lock()  # of the file's position
        self._decoded: tuple[int, bytes] | None = None  # the last chunk: its tensors are usually read in turn
        try:
            self._read_header()
            self._read_directory(limit)
        except BaseException:
            source.close()
            raise

    @classmethod
    def open(cls, path: Path | str, limit: int = DEFAULT_LIMIT) -> Container:
        """Open a container file.

        Args:
            path: a regular file.
            limit: most bytes that all tensors together may take when decoded.

        Raises:
            InputError: no such file, or it cannot be read.
            FormatError: this version cannot read the file; the message has the reason and the byte.
        """
        try:
            mode = Path(path).stat().st_mode
            if not stat.S_ISREG(mode):
                what = "a folder" if stat.S_ISDIR(mode) else "a pipe or device"
                raise FormatError(f"{path} is {what}; a container is read at random, so save it as a file first")
            source = Path(path).open("rb")  # noqa: SIM115 (owned by the container)
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}") from error
        return cls(source, str(path), limit)

    @classmethod
    def from_bytes(cls, data: bytes, limit: int = DEFAULT_LIMIT, path: str = "container") -> Container:
        """Open a container that is held in memory; raises as ``open`` does."""
        return cls(io.BytesIO(data), path, limit)

    def __enter__(self) -> Container:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; nothing can be read afterwards."""
        self._source.close()
        self._decoded = None

    def read(self, name: str) -> Array:
        """Return a tensor's values as a new C-contiguous little-endian array of its shape.

        A bf16 tensor is returned as uint16 patterns, a tensor of quantized symbols as int8.

        Raises:
            InputError: no tensor has this name.
            FormatError: its chunk is damaged; the message has the tensor and the byte.
        """
        info = self.tensors.get(name)
        if info is None:
            raise InputError(f"{self.path} has no tensor {name!r}{nearest(name, self.tensors)}")
        return self._cut(info, self._decode(info))

    def read_all(self, threads: int = 0) -> dict[str, Array]:
        """Return all tensors in file order; several threads decode the chunks.

        Args:
            threads: number of threads; 0 for one per core.

        Raises:
            FormatError: a damaged chunk; the message has its tensor and byte.
        """
        heads: dict[int, TensorInfo] = {}  # a chunk's first tensor
        for info in self.tensors.values():
            heads.setdefault(info.chunk, info)
        pool = ThreadPoolExecutor(threads or machine.threads())
        try:
            by_size = sorted(heads, key=lambda i: -self.chunks[i].layout.raw_len)
            futures = {i: pool.submit(self._decode_chunk, heads[i]) for i in by_size}
            raws = {i: futures[i].result() for i in sorted(futures)}
        finally:
            pool.shutdown(cancel_futures=True)
        return {name: self._cut(info, raws[info.chunk]) for name, info in self.tensors.items()}

    def _cut(self, info: TensorInfo, raw: bytes) -> Array:
        array = np.frombuffer(raw, info.kind.numpy, info.size, info.offset).reshape(info.shape)
        if info.bits and (problem := symbol_problem(array, info.bits)):
            raise self._fail(info, problem)
        return array.copy()

    def verify(self) -> None:
        """Check the trailer, every chunk's checksum, and that every tensor decodes.

        Raises:
            FormatError: the first failure.
        """
        body = self._read(0, self.file_len - TRAILER.size, "the file")
        (stored,) = TRAILER.unpack(self._read(len(body), TRAILER.size, "the trailer"))
        if (found := _core.xxh64(body)) != stored:
            raise FormatError(
                f"{self.path} byte {len(body)}: xxh64 of the file is {found:016x}, the trailer says {stored:016x};"
                f" {_DAMAGED}"
            )
        del body
        for name in self.tensors:
            self.read(name)

    def _decode(self, info: TensorInfo) -> bytes:
        held = self._decoded
        if held is not None and held[0] == info.chunk:
            return held[1]
        self._decoded = held = None  # so that two chunks are never held at once
        raw = self._decode_chunk(info)
        self._decoded = info.chunk, raw
        return raw

    def _decode_chunk(self, info: TensorInfo) -> bytes:
        chunk = self.chunks[info.chunk]
        coded = self._read(self._payload_start + chunk.offset, chunk.coded_len, f"tensor {info.name!r}")
        if (found := _core.crc32c(coded)) != chunk.crc32c:
            raise self._fail(info, f"crc32c is {found:08x}, the directory says {chunk.crc32c:08x}; {_DAMAGED}")
        try:
            return CODECS[chunk.codec].decode(coded, chunk.layout, chunk.params)
        except CodecError as error:
            raise self._fail(info, f"codec {CODECS[chunk.codec].name}: {error}") from error

    def _fail(self, info: TensorInfo, problem: str) -> FormatError:
        at = self._payload_start + self.chunks[info.chunk].offset
        return FormatError(f"{self.path}: tensor {info.name!r} (chunk {info.chunk} at byte {at}): {problem}")

    def _read(self, at: int, n: int, what: str) -> bytes:
        try:
            with self._lock:
                self._source.seek(at)
                data = self._source.read(n)
        except OSError as error:
            raise InputError(f"cannot read {self.path}: {error.strerror or error}") from error
        if len(data) != n:  # it was whole when it was opened
            raise FormatError(f"{self.path} byte {at}: {what} needs {n} bytes, the file now ends after {len(data)}")
        return data

    def _read_header(self) -> None:
        self.file_len = self._source.seek(0, os.SEEK_END)
        self._source.seek(0)
        head = self._source.read(HEADER.size)
        if head[: len(MAGIC)] != MAGIC[: len(head)]:
            raise FormatError(
                f"{self.path} byte 0: starts with {head[:4]!r}, expected {MAGIC!r}: not a model container"
            )
        if len(head) < HEADER.size:
            raise FormatError(
                f"{self.path}: cut off after {len(head)} bytes, inside the header of {HEADER.size}; {_DAMAGED}"
            )
        _, major, self.minor, flags, self.directory_raw, self.directory_coded, self.payload_len, crc = HEADER.unpack(
            head
        )
        if major != MAJOR:
            raise FormatError(
                f"{self.path} byte 4: written by an incompatible version of golfcore "
                f"(format {major}, this one reads {MAJOR})"
            )
        if flags:
            raise FormatError(f"{self.path} byte 6: unknown flags 0x{flags:04x}; written by a newer golfcore")
        self._payload_start = HEADER.size + self.directory_coded
        expected = self._payload_start + self.payload_len + TRAILER.size
        if self.file_len < expected:
            raise FormatError(f"{self.path}: cut off after {self.file_len} of {expected} bytes; {_DAMAGED}")
        if self.file_len > expected:
            raise FormatError(f"{self.path} byte {expected}: {self.file_len - expected} bytes follow the trailer")
        self._header, self.directory_crc32c = head, crc

    def _read_directory(self, limit: int) -> None:
        where = f"{self.path}: directory"
        if not 0 < self.directory_raw <= MAX_DIRECTORY or not 0 < self.directory_coded <= MAX_DIRECTORY:
            raise FormatError(
                f"{self.path} byte 8: directory of {self.directory_raw} bytes, {self.directory_coded} coded, expected 1"
                f" to {MAX_DIRECTORY}"
            )
        coded = self._read(HEADER.size, self.directory_coded, "the directory")
        if (found := _core.crc32c(coded, _core.crc32c(self._header[:-4]))) != self.directory_crc32c:
            raise FormatError(
                f"{self.path} byte 20: crc32c of header and directory is {found:08x}, the header says"
                f" {self.directory_crc32c:08x}; {_DAMAGED}"
            )
        try:
            raw = zstd_decompress(coded, self.directory_raw)
        except CodecError as error:
            raise FormatError(f"{where} at byte {HEADER.size}: {error}") from error
        parsed = directories.from_bytes(raw, where)
        self.manifest = parsed.manifest
        self.chunks = parsed.chunks
        self.tensors: Mapping[str, TensorInfo] = {info.name: info for info in parsed.tensors}
        coded_len = sum(chunk.coded_len for chunk in self.chunks)
        if coded_len != self.payload_len:
            raise FormatError(f"{where}: chunks of {coded_len} bytes, the header says {self.payload_len}")
        if (raw_len := sum(chunk.layout.raw_len for chunk in self.chunks)) > limit:
            raise FormatError(f"{where}: tensors of {raw_len} bytes, more than the limit of {limit}")
