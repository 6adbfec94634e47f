"""Read documents from ``.txt`` and ``.jsonl`` files (one ``{"text": ...}`` per line), plain, ``.gz`` or ``.zst``.

A ``.txt`` file is one document, or, above 8 KiB, several: it is cut at the blank lines, so that one long text, a book
say, can be split into training and validation. The pieces end to end are the file.

Files come from strangers: each line and each document is bounded, compressed files are read in small pieces, and text
must be UTF-8. Memory is bounded by one document.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import itertools
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, cast

import zstandard

from golfcore.errors import InputError

MAX_DOCUMENT_BYTES = 256 << 20
KINDS = (".txt", ".jsonl")
PACKED = (".gz", ".zst")
_PIECE = 8 << 10
_BOM = b"\xef\xbb\xbf"
# A zstd block can stand for 128 KiB in 4 bytes, so this bounds what one piece of input may unfold to (128 MiB).
_ZSTD_PIECE = 4096


def read_documents(paths: Sequence[Path]) -> Iterator[bytes]:
    """Return an iterator over the documents of files and folders, in the order given; folders are walked sorted.

    In a folder, hidden files and files of other kinds are passed over. Blank lines of a ``.jsonl`` file and lines whose
    text is empty are passed over too, and so is a byte order mark.

    Returns:
        An iterator over each document's UTF-8 bytes; files are opened one at a time as it advances.

    Raises:
        InputError: a missing path or an unknown kind (at once); while iterating, a file without text, bytes that are
            not UTF-8 text (with their offset), a bad JSON line (as ``file:line``), a damaged compressed file.
    """
    return _read(text_files(paths))


def text_files(paths: Sequence[Path]) -> list[Path]:
    """Return the files that ``read_documents`` reads for these paths, in the same order.

    Raises:
        InputError: a missing path, an unknown kind of file, or nothing to read.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = [f for f in sorted(path.rglob("*")) if _kind(f) and f.is_file() and not _hidden(f, path)]
            if not inside:
                raise InputError(f"{path}: no .txt or .jsonl file (plain, .gz or .zst) in this folder")
            files += inside
        elif not path.exists():
            raise InputError(f"{path}: no such file or folder; check the path given as text")
        elif not _kind(path):
            raise InputError(f"{path}: unknown kind of text; expected .txt or .jsonl, plain or with .gz or .zst")
        else:
            files.append(path)
    if not files:
        raise InputError("no text was given; name at least one .txt or .jsonl file or a folder of them")
    return files


def _kind(path: Path) -> str:
    """Return ``.txt`` or ``.jsonl``, whatever the compression, or an empty string for other kinds."""
    name = path.with_suffix("") if path.suffix in PACKED else path
    return name.suffix if name.suffix in KINDS else ""


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _read(files: list[Path]) -> Iterator[bytes]:
    for path in files:
        found = 0
        with _opened(path) as f:
            for document in _lines(path, f) if _kind(path) == ".jsonl" else _whole(path, f):
                found += 1
                yield document
        if not found:
            raise InputError(f"{path}: holds no text; remove it or leave it out")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Open ``path`` for its decompressed bytes; an error while reading becomes an InputError of one line."""
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rb") as packed:
                yield cast(IO[bytes], packed)
        elif path.suffix == ".zst":
            with path.open("rb") as raw, io.BufferedReader(_ZstdReader(raw), 1 << 20) as f:
                yield f
        else:
            with path.open("rb") as f:
                yield f
    except (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
        raise InputError(f"{path}: damaged {path.suffix} file ({error}); fetch or compress it again") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


class _ZstdReader(io.RawIOBase):
    """A reader of all frames of a ``.zst`` file; unlike zstandard's own it tells a cut-off file from a whole one."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._fresh = True  # no byte of the present frame was read yet
        self._packed = self._plain = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        while not self._plain:
            if self._frame.eof:
                self._packed = self._frame.unused_data + self._packed
                self._frame = zstandard.ZstdDecompressor().decompressobj()
                self._fresh = True
            piece, self._packed = (self._packed or self._source.read(_ZSTD_PIECE)), b""
            if not piece:
                if self._fresh:
                    return 0
                raise EOFError("the file ends in the middle of a frame")
            self._fresh = False
            self._plain = self._frame.decompress(piece)
        count = min(len(buffer), len(self._plain))
        buffer[:count] = self._plain[:count]
        self._plain = self._plain[count:]
        return count


def _whole(path: Path, f: IO[bytes]) -> Iterator[bytes]:
    data = f.read(MAX_DOCUMENT_BYTES + 1)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise InputError(
            f"{path}: a document of more than {MAX_DOCUMENT_BYTES >> 20} MiB; split it into several .txt files, "
            'or write it as .jsonl with one {"text": ...} per line'
        )
    _check_text(data, str(path), 0)
    yield from _pieces(data.removeprefix(_BOM))


def _pieces(data: bytes) -> Iterator[bytes]:
    """Yield pieces of ``data``, each cut at the first blank line (or else line) beyond ``_PIECE`` bytes."""
    start = 0
    while start < len(data):
        end = len(data)
        for mark in (b"\n\n", b"\n"):
            found = data.find(mark, start + _PIECE, start + 8 * _PIECE)
            if found >= 0:
                end = found + len(mark)
                break
        yield data[start:end]
        start = end


def _lines(path: Path, f: IO[bytes]) -> Iterator[bytes]:
    offset = 0
    for number in itertools.count(1):
        line = f.readline(MAX_DOCUMENT_BYTES + 1)
        if not line:
            return
        where = f"{path}:{number}"
        if len(line) > MAX_DOCUMENT_BYTES:
            raise InputError(f"{where}: a line of more than {MAX_DOCUMENT_BYTES >> 20} MiB; split the document")
        _check_text(line, where, offset)
        offset += len(line)
        body = line.removeprefix(_BOM) if number == 1 else line
        if body.strip() and (document := _json_text(body, where)):
            yield document


def _check_text(data: bytes, where: str, offset: int) -> None:
    """Raise InputError if ``data`` is not UTF-8 text; ``offset`` is where it begins in its (decompressed) file."""
    nul = data.find(0)
    if nul >= 0:
        raise InputError(f"{where}: binary data, a NUL byte at offset {offset + nul}; expected UTF-8 text")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = data[error.start]
        raise InputError(
            f"{where}: not UTF-8, byte 0x{byte:02x} at offset {offset + error.start}; convert the file to UTF-8"
        ) from error


def _json_text(line: bytes, where: str) -> bytes:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f'{where}: not a JSON line ({error}); expected {{"text": "..."}}') from error
    text = record.get("text") if isinstance(record, dict) else None
    if not isinstance(text, str):
        raise InputError(f'{where}: no string under "text"; expected {{"text": "..."}}')
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: half of a surrogate pair at character {error.start} of the text") from error
