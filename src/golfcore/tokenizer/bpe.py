"""The tokenizer: byte-level BPE (byte-pair encoding) within pieces of text that a GPT-4-like pattern cuts.

Ids: 0 pad, 1 bos, 2 eos, 3 unk, 4..259 the bytes (id = byte + 4), then one id per merge, in order of learning. A
    tokenizer
without merges is the contest's ``byte260``. Any bytes round-trip exactly, well-formed UTF-8 or not.

File, little-endian: 8 bytes ``golfbpe\\0``; uint16 version 1; uint16 pattern 1; uint32 number of merges n; n pairs of
uint16 ids (left, right); uint32 CRC-32 of all before.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from golfcore import _core, machine
from golfcore.errors import FormatError, InputError
from golfcore.paths import atomic_write
from golfcore.ranges import THREADS, VOCAB

if TYPE_CHECKING:
    import tiktoken

PATTERN = (
    r"'(?:[sdmtSDMT]|[lL][lL]|[vV][eE]|[rR][eE])"
    r"|[^\r\n\p{L}\p{N}]?+\p{L}++"
    r"|\p{N}{1,2}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s*[\r\n]+"
    r"|\s+(?!\S)"
    r"|\s+"
)
"""The pattern that cuts text before merging, as a regex for tiktoken, Hugging Face tokenizers and rustbpe.

The compiled scanner (``csrc/bpe/pretokenize.h``) finds the same pieces without a regex engine. Characters are classed
by Unicode 16.0; a byte that is no part of a well-formed UTF-8 sequence counts as a symbol, as U+FFFD would.
"""

SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")
FIRST_BYTE = len(SPECIALS)
MIN_VOCAB_SIZE = FIRST_BYTE + 256
MAX_VOCAB_SIZE = 65_536

_MAGIC = b"golfbpe\0"
_VERSION = 1
_PATTERN_ID = 1
_HEADER = struct.Struct("<8sHHI")
_MAX_FILE = _HEADER.size + 4 * (MAX_VOCAB_SIZE - MIN_VOCAB_SIZE) + 4


def split(data: bytes) -> list[bytes]:
    """Split ``data`` into the pieces that merges never cross; joined they are ``data``."""
    _check_document(data)
    pieces: list[bytes] = _core.bpe_split(data)
    return pieces


class Tokenizer:
    """A tokenizer: text to ids and back. Safe to share between threads; encoding releases the GIL.

    Args:
        merges: pairs of earlier ids, ``[n, 2]``; id ``260 + i`` stands for ``merges[i]``. None makes byte260.

    Raises:
        FormatError: a merge that does not fit: not two earlier ids, a token above 255 bytes, a merge that earlier ones
            always prevent.
    """

    PAD, BOS, EOS, UNK = range(FIRST_BYTE)

    def __init__(self, merges: ArrayLike | None = None) -> None:
        given = np.empty((0, 2), np.uint16) if merges is None else np.asarray(merges)
        if given.ndim != 2 or given.shape[1] != 2 or len(given) > MAX_VOCAB_SIZE - MIN_VOCAB_SIZE:
            raise FormatError(f"merges of shape {given.shape}, expected [n, 2] with n <= 65,276")
        if given.size and not (np.issubdtype(given.dtype, np.integer) and given.min() >= 0 and given.max() < 65_536):
            raise FormatError(f"merges of type {given.dtype}, expected ids from 0 to 65,535")
        self._merges_N2: NDArray[np.uint16] = np.array(given, np.uint16, order="C")
        self._merges_N2.flags.writeable = False
        try:
            self._core = _core.BpeEncoder(self._merges_N2)
        except ValueError as error:
            raise FormatError(f"tokenizer: {error}; train it again") from error
        self.token_bytes: NDArray[np.int32] = self._core.lengths()
        """Byte length of each id, ``[vocab_size]``; 0 for special ids."""
        self.token_bytes.flags.writeable = False

    @classmethod
    def train(cls, docs: Sequence[bytes], vocab_size: int, threads: int = 0) -> Tokenizer:
        """Learn merges from text; the same documents give the same tokenizer whatever their order and ``threads``.

        Each merge takes the most frequent pair; of equally frequent pairs the one with the lowest left id, then the
        lowest right id.

        Args:
            docs: the documents; nothing is merged across their borders.
            vocab_size: size of the vocabulary, from 260 (bytes only) to 65,536.
            threads: number of threads; 0 for all cores.

        Raises:
            UsageError: ``vocab_size`` out of range.
            InputError: too little text for that many merges (a pair must occur twice), or 4 GiB of text or more.
        """
        threads = _thread_count(threads)
        VOCAB.check("vocab_size", vocab_size)
        if (size := sum(map(len, docs))) > _core.BPE_MAX_TRAINING_BYTES:
            raise InputError(f"training text of {size:,} bytes, expected less than 4 GiB; train on a sample")
        try:
            merges_N2 = _core.bpe_train(docs, vocab_size - MIN_VOCAB_SIZE, threads)
        except ValueError as error:
            raise InputError(f"training text: {error}; train on a sample") from error
        if len(merges_N2) + MIN_VOCAB_SIZE < vocab_size:
            most = len(merges_N2) + MIN_VOCAB_SIZE
            raise InputError(
                f"{size:,} bytes of text hold too few repeated pairs for a vocabulary of {vocab_size}; "
                f"give more text or ask for at most {most}"
            )
        return cls(merges_N2)

    @property
    def vocab_size(self) -> int:
        return MIN_VOCAB_SIZE + len(self._merges_N2)

    def encode(self, data: bytes | str) -> NDArray[np.uint16]:
        """Return the ids of one document, without BOS.

        Raises:
            InputError: more than 2 GiB, or a string with lone surrogates, which stands for no bytes.
        """
        if isinstance(data, str):
            try:
                data = data.encode()
            except UnicodeEncodeError as error:
                raise InputError(f"text with a lone surrogate at {error.start} has no UTF-8; give bytes") from error
        _check_document(data)
        ids: NDArray[np.uint16] = self._core.encode(data)
        return ids

    def encode_batch(self, docs: Sequence[bytes], threads: int = 0) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
        """Return the ids of all documents end to end, without BOS, and where each document begins.

        Args:
            docs: the documents, each encoded as by ``encode``.
            threads: number of threads, 0 for all cores; the result does not depend on it.

        Returns:
            Ids, and offsets ``[len(docs) + 1]``: document ``i`` is ``ids[offsets[i]:offsets[i + 1]]``.

        Raises:
            InputError: a document of more than 2 GiB.
        """
        threads = _thread_count(threads)
        for doc in docs:
            _check_document(doc)
        ids, offsets = self._core.encode_batch(docs, threads)
        return ids, offsets

    def decode(self, ids: ArrayLike) -> bytes:
        """Return the bytes that ids stand for; special ids stand for none.

        Raises:
            InputError: an id outside the vocabulary, or ids that are not integers.
        """
        given = np.asarray(ids)
        if given.size == 0:
            return b""
        if not np.issubdtype(given.dtype, np.integer):
            raise InputError(f"ids of type {given.dtype}, expected integers")
        if given.dtype != np.uint16 and not 0 <= int(given.min()) <= int(given.max()) < self.vocab_size:
            raise self._foreign(given)
        try:
            text: bytes = self._core.decode(np.ascontiguousarray(given, np.uint16))
        except IndexError as error:
            raise self._foreign(given) from error
        return text

    def _foreign(self, ids: NDArray[Any]) -> InputError:
        bad = ids[(ids < 0) | (ids >= self.vocab_size)].flat[0]
        return InputError(
            f"id {bad} is not in this vocabulary of {self.vocab_size}; use the tokenizer that made the ids"
        )

    def to_bytes(self) -> bytes:
        """Return the tokenizer as the content of a file (the head of this module has the format)."""
        head = _HEADER.pack(_MAGIC, _VERSION, _PATTERN_ID, len(self._merges_N2))
        body = head + self._merges_N2.astype("<u2").tobytes()
        return body + struct.pack("<I", zlib.crc32(body))

    @classmethod
    def from_bytes(cls, content: bytes) -> Tokenizer:
        """Return the tokenizer whose ``to_bytes`` is ``content``.

        Raises:
            FormatError: ``to_bytes`` never writes such data.
        """
        if len(content) < _HEADER.size + 4 or not content.startswith(_MAGIC):
            raise FormatError("not a golfcore tokenizer: it does not begin with 'golfbpe'; make one with `tok train`")
        _, version, pattern, n = _HEADER.unpack_from(content)
        if (version, pattern) != (_VERSION, _PATTERN_ID):
            raise FormatError(
                f"tokenizer of version {version} with pattern {pattern}, expected {_VERSION} and {_PATTERN_ID}; "
                "it needs another golfcore"
            )
        if n > MAX_VOCAB_SIZE - MIN_VOCAB_SIZE:
            raise FormatError(f"tokenizer with {n:,} merges, expected at most 65,276")
        if len(content) != (size := _HEADER.size + 4 * n + 4):
            raise FormatError(f"tokenizer of {len(content):,} bytes, expected {size:,} for {n:,} merges; copy it again")
        if zlib.crc32(content[:-4]) != struct.unpack("<I", content[-4:])[0]:
            raise FormatError("tokenizer: the checksum does not fit; copy it again")
        return cls(np.frombuffer(content, "<u2", 2 * n, _HEADER.size).reshape(n, 2))

    def save(self, path: Path | str) -> None:
        """Write ``to_bytes()`` to a file; never half of it."""
        with atomic_write(Path(path)) as f:
            f.write(self.to_bytes())

    @classmethod
    def load(cls, path: Path | str) -> Tokenizer:
        """Read a file that ``save`` wrote.

        Raises:
            InputError: the file cannot be read.
            FormatError: the file is not a tokenizer, or damaged.
        """
        try:
            with Path(path).open("rb") as f:
                content = f.read(_MAX_FILE + 1)
        except OSError as error:
            raise InputError(f"cannot read the tokenizer {path}: {error.strerror or error}") from error
        try:
            return cls.from_bytes(content)
        except FormatError as error:
            raise FormatError(f"{path}: {error}") from error

    @cached_property
    def sha256(self) -> str:
        """Hex SHA-256 of ``to_bytes()``."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def token(self, token_id: int) -> bytes:
        """Return the bytes of one id; b"" for a special id."""
        return self.decode([token_id])

    def to_tiktoken(self) -> tiktoken.Encoding:
        """Return the tokenizer as a ``tiktoken.Encoding``, which gives the same ids for any well-formed UTF-8.

        Raises:
            InputError: tiktoken is not installed.
        """
        try:
            import tiktoken
        except ImportError as error:
            raise InputError("tiktoken is not installed; run: pip install 'golfcore[bench]'") from error
        return tiktoken.Encoding(
            f"golfcore-{self.sha256[:12]}",
            pat_str=PATTERN,
            mergeable_ranks={self.token(i): i for i in range(FIRST_BYTE, self.vocab_size)},
            special_tokens={name: i for i, name in enumerate(SPECIALS)},
        )


def _check_document(data: Any) -> None:
    if not isinstance(data, bytes):
        raise InputError(f"a document of type {type(data).__name__}, expected bytes")
    if len(data) > _core.BPE_MAX_DOCUMENT_BYTES:
        raise InputError(f"a document of {len(data):,} bytes, expected less than 2 GiB; split it")


def _thread_count(threads: int) -> int:
    THREADS.check("threads", threads)
    return threads or machine.threads()
