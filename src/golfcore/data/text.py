"""Read documents from ``.txt`` and ``.jsonl`` files (one ``{"text": ...}`` per line), plain, ``.gz`` or ``.zst``.

A ``.txt`` file is one document, or, above 8 KiB, several: it is cut at the blank lines, so that one long text, a book
say, can be split into training and validation. The pieces end to end are the file.

Files come from strangers: each line and each document is bounded, compressed files are read in small pieces, and text
must be UTF-8. Memory is bounded by one document. ``text_files.py`` finds the files, and both count what they leave out.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import itertools
import json
import logging
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, cast

import zstandard

from golfcore.data.text_files import Reading, find_texts, kind_of
from golfcore.errors import InputError

MAX_DOCUMENT_BYTES = 256 << 20
_PIECE = 8 << 10
_BOM = b"\xef\xbb\xbf"
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")  # byte order marks of UTF-16 and UTF-32
# A zstd block can stand for 128 KiB in 4 bytes, so this bounds what one piece of input may unfold to (128 MiB).
_ZSTD_PIECE = 4096
_LOG = logging.getLogger(__name__)


class InvalidText(InputError):
    """A document that is no text: not UTF-8, not a JSON line with a text, or half of a surrogate pair."""


class Texts:
    """The documents of files and folders, and the counts of what was read and of what was left out.

    In a folder, files of other kinds, hidden ones, empty ones and links to folders are left out and counted. Blank
    lines of a ``.jsonl`` file are passed over, and so is a byte order mark.

    Attributes:
        files: the files to read, in the order given; those of a folder are sorted.
        reading: the counts; complete when ``documents`` has ended.
    """

    def __init__(self, paths: Sequence[Path], *, skip_invalid: bool | None = None) -> None:
        """Find the files.

        Args:
            paths: files and folders.
            skip_invalid: whether documents that are no text are left out and counted; None if the user has no such
                choice, so that no error offers it.

        Raises:
            InputError: a missing path, an unknown kind of file, or nothing to read.
        """
        self.files, self._named, self._left_out = find_texts(paths)
        self._skip_invalid = skip_invalid
        self.reading = Reading()

    def documents(self) -> Iterator[bytes]:
        """Yield each document's UTF-8 bytes; files are opened one at a time.

        Raises:
            InputError: a named file without text, bytes that are not UTF-8 text (with their offset), a bad JSON line
                (as ``file:line``), a damaged compressed file.
        """
        reading = self.reading = Reading(left_out=dict(self._left_out))
        for path in self.files:
            before = reading.documents
            with _opened(path) as f:
                for document in (_lines if kind_of(path) == ".jsonl" else _whole)(path, f, self._reject):
                    reading.empty += not document
                    if document:
                        reading.documents += 1
                        yield document
            if reading.documents > before:
                reading.files += 1
            elif path in self._named:
                raise InputError(f"{path}: holds no text; remove it or leave it out")
            else:
                reading.leave_out(f"{kind_of(path)} without text")
        if not reading.documents:
            raise InputError(f"no text in {len(self.files)} files, the first {self.files[0]}; give other files")

    def tell(self, more: str = "") -> None:
        """Report the counts to the log of Python, as a warning if anything was left out."""
        level = logging.WARNING if self.reading.left_out or self.reading.invalid else logging.INFO
        _LOG.log(level, "text: %s%s", self.reading.line(), more)

    def _reject(self, error: InvalidText) -> None:
        if not self._skip_invalid:
            offer = "; leave such documents out with --skip-invalid (data.skip_invalid=true), which counts them"
            raise InvalidText(f"{error}{offer if self._skip_invalid is False else ''}") from error
        self.reading.invalid += 1
        self.reading.first_invalid = self.reading.first_invalid or str(error)


Reject = Callable[[InvalidText], None]
"""Called with each document that is no text: raises, or counts it."""


def read_documents(paths: Sequence[Path], *, skip_invalid: bool | None = None) -> Iterator[bytes]:
    """Return an iterator over the documents of files and folders; at its end the counts are reported (``Texts``).

    Raises:
        InputError: a missing path or an unknown kind (at once); while iterating, what ``Texts.documents`` raises.
    """
    texts = Texts(paths, skip_invalid=skip_invalid)

    def documents() -> Iterator[bytes]:
        yield from texts.documents()
        texts.tell()

    return documents()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Open ``path`` for its decompressed bytes; an error while reading becomes an InputError of one line."""
    try:
        if path.suffix.lower() == ".gz":
            with gzip.open(path, "rb") as packed:
                yield cast(IO[bytes], packed)
        elif path.suffix.lower() == ".zst":
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


def _whole(path: Path, f: IO[bytes], reject: Reject) -> Iterator[bytes]:
    data = f.read(MAX_DOCUMENT_BYTES + 1)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise InputError(
            f"{path}: a document of more than {MAX_DOCUMENT_BYTES >> 20} MiB; split it into several .txt files, "
            'or write it as .jsonl with one {"text": ...} per line'
        )
    _check_utf8_file(data, path)
    offset = len(_BOM) if data.startswith(_BOM) else 0
    for piece in _pieces(data[offset:]):
        try:
            _check_text(piece, str(path), offset)
        except InvalidText as error:
            reject(error)
        else:
            yield piece
        offset += len(piece)


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


def _lines(path: Path, f: IO[bytes], reject: Reject) -> Iterator[bytes]:
    """Yield the text of each line of a ``.jsonl`` file, empty ones too; blank lines are passed over."""
    offset = 0
    for number in itertools.count(1):
        line = f.readline(MAX_DOCUMENT_BYTES + 1)
        if not line:
            return
        where = f"{path}:{number}"
        if len(line) > MAX_DOCUMENT_BYTES:
            raise InputError(f"{where}: a line of more than {MAX_DOCUMENT_BYTES >> 20} MiB; split the document")
        if number == 1:
            _check_utf8_file(line, path)
        body = line.removeprefix(_BOM) if number == 1 else line
        try:
            _check_text(line, where, offset)
            document = _json_text(body, where) if body.strip() else None
        except InvalidText as error:
            reject(error)
        else:
            if document is not None:
                yield document
        offset += len(line)


def _check_utf8_file(data: bytes, path: Path) -> None:
    """Raise InputError if a file that begins with ``data`` says that it is in UTF-16 or UTF-32."""
    if data.startswith(_WIDE_MARKS):
        width = 32 if data.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")) else 16
        raise InputError(
            f"{path}: in UTF-{width}, as the byte order mark at its start says; expected UTF-8: convert it with "
            f"iconv -f UTF-{width} -t UTF-8"
        )


def _check_text(data: bytes, where: str, offset: int) -> None:
    """Raise InvalidText if ``data`` is not UTF-8 text; ``offset`` is where it begins in its (decompressed) file."""
    nul = data.find(0)
    if nul >= 0:
        raise InvalidText(f"{where}: binary data, a NUL byte at offset {offset + nul}; expected UTF-8 text")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = data[error.start]
        raise InvalidText(
            f"{where}: not UTF-8, byte 0x{byte:02x} at offset {offset + error.start}; convert the file to UTF-8"
        ) from error


def _json_text(line: bytes, where: str) -> bytes:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidText(f'{where}: not a JSON line ({error}); expected {{"text": "..."}}') from error
    text = record.get("text") if isinstance(record, dict) else None
    if not isinstance(text, str):
        raise InvalidText(f'{where}: no string under "text"; expected {{"text": "..."}}')
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidText(f"{where}: half of a surrogate pair at character {error.start} of the text") from error
