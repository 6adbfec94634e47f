"""Write and memory-map token shards in the contest's format.

A shard is a header of 256 little-endian int32 ([0] magic 20240520, [1] version 1, [2] number of tokens, the rest 0)
and exactly that many little-endian uint16 ids. ``fineweb_train_000000.bin`` and so on are one stream in sorted order.
"""

from __future__ import annotations

import contextlib
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Annotated, Any

import numpy as np

from golfcore.data.contracts import Ids
from golfcore.data.hints import how_to_prepare
from golfcore.errors import FormatError, InputError
from golfcore.paths import atomic_write, sha256_file
from golfcore.ranges import Range

MAGIC = 20240520
VERSION = 1
HEADER_BYTES = 1024
TOKENS_PER_SHARD = 100_000_000
MAX_TOKENS = 2**31 - 1
SHARD_TOKENS = Range(1, MAX_TOKENS)
_SHARD_NAME = re.compile(r"fineweb_(train|val|val_bytes)_(\d{6})\.bin")


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """Name, token count and hash of a shard, as a manifest lists them."""

    name: str
    tokens: Annotated[int, SHARD_TOKENS]
    sha256: str


def shard_name(split: str, index: int) -> str:
    """Return ``fineweb_train_000000.bin`` for ``("train", 0)``.

    Splits are train, val and val_bytes (the byte counts that the contest's CaseOps variant keeps beside its tokens)."""
    return f"fineweb_{split}_{index:06d}.bin"


def split_files(folder: Path, split: str) -> list[Path]:
    """Return the shards of one split in a folder, sorted; files of byte counts are not among those of val."""
    found = (p for p in folder.iterdir() if (m := _SHARD_NAME.fullmatch(p.name)) and m[1] == split)
    return sorted(found)


def shard_index(path: Path) -> int:
    """Return the number in a shard's name.

    Raises:
        FormatError: the name is not that of a shard.
    """
    match = _SHARD_NAME.fullmatch(path.name)
    if match is None:
        raise FormatError(f"{path}: not a shard's name; expected for example {shard_name('train', 0)}")
    return int(match[2])


def header(tokens: int) -> bytes:
    """Return the header of a shard of ``tokens`` ids, 1,024 bytes."""
    ints = np.zeros(HEADER_BYTES // 4, dtype="<i4")
    ints[:3] = MAGIC, VERSION, tokens
    return ints.tobytes()


def read_header(path: Path) -> int:
    """Read a shard's header and return its number of tokens; magic, version and file size are checked.

    Raises:
        FormatError: magic, version or size is wrong; the message names the file.
        InputError: the file cannot be read.
    """
    again = "delete the file and fetch or prepare it again"
    try:
        size = path.stat().st_size
        with path.open("rb") as f:
            raw = f.read(HEADER_BYTES)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    if size == 0:
        raise FormatError(f"{path}: an empty file (0 bytes); {again}")
    if len(raw) < HEADER_BYTES:
        raise FormatError(f"{path}: {size} bytes, shorter than the header of {HEADER_BYTES}; {again}")
    magic, version, tokens = (int(x) for x in np.frombuffer(raw, dtype="<i4", count=3))
    if magic != MAGIC:
        raise FormatError(f"{path}: magic {magic}, expected {MAGIC}; this is not a token shard")
    if version != VERSION:
        raise FormatError(f"{path}: version {version}, expected {VERSION}")
    SHARD_TOKENS.check(f"{path}: the header's number of tokens", tokens, FormatError)
    expected = HEADER_BYTES + 2 * tokens
    if size != expected:
        raise FormatError(f"{path}: {size} bytes, expected {expected} for {tokens} tokens; {again}")
    return tokens


def map_shard(path: Path) -> Ids:
    """Memory-map a shard's ids, uint16 ``[tokens]``, read-only; raises as ``read_header`` does."""
    tokens = read_header(path)
    return np.memmap(path, dtype="<u2", mode="r", offset=HEADER_BYTES, shape=(tokens,))


def check_ids(ids: Ids, vocab_size: int, where: str) -> None:
    """Raise FormatError if an id is outside the vocabulary; the message names the first."""
    if ids.size and int(ids.max()) >= vocab_size:
        at = int(np.argmax(ids >= vocab_size))
        raise FormatError(f"{where}: id {int(ids[at])} at token {at}, expected below vocab_size = {vocab_size}")


class ShardSet:
    """The tokens of several shards as one virtual array; ``set[a:b]`` reads across shard ends.

    A slice inside one shard is a read-only view of the memory map; one that crosses a shard's end is a copy.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        """Memory-map every file.

        Raises:
            InputError: the list of files is empty.
            FormatError: a file breaks the format.
        """
        if not files:
            raise InputError(
                "no token shards were given; make some with: golfcore data prepare --text YOUR_TEXT -o FOLDER"
            )
        self.files = tuple(files)
        self._maps = [map_shard(path) for path in files]
        self._starts = np.cumsum([0] + [len(m) for m in self._maps]).tolist()

    @classmethod
    def of_split(cls, folder: Path, split: str) -> ShardSet:
        """Open the shards of a folder's ``train`` or ``val`` split.

        Raises:
            InputError: no such folder or no such shard in it.
        """
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; {how_to_prepare(folder)}")
        files = split_files(folder, split)
        if not files:
            raise InputError(f"{folder}: no {shard_name(split, 0)} in it; {how_to_prepare(folder)}")
        return cls(files)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, where: slice) -> Ids:
        start, stop, step = where.indices(len(self))
        if step != 1:
            raise InputError(f"a slice of tokens with step {step}; expected step 1")
        if stop <= start:
            return np.empty(0, dtype=np.uint16)
        parts = []
        shard = bisect_right(self._starts, start) - 1
        while start < stop:
            base, end = self._starts[shard], min(stop, self._starts[shard + 1])
            parts.append(self._maps[shard][start - base : end - base])
            start, shard = end, shard + 1
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


class ShardWriter:
    """A writer of ids into shards of a fixed number of tokens; a shard appears under its name only when complete.

    Use it as a context manager: leaving by an exception drops the shard in progress.
    """

    def __init__(self, folder: Path, split: str, shard_tokens: int = TOKENS_PER_SHARD) -> None:
        """Begin a stream of tokens whose first file is shard 0; the first ``append`` writes it.

        Raises:
            InputError: ``shard_tokens`` does not fit the header.
        """
        SHARD_TOKENS.check("shard_tokens", shard_tokens, InputError)
        self.records: list[ShardRecord] = []
        self._folder, self._split, self._shard_tokens = folder, split, shard_tokens
        self._open = contextlib.ExitStack()
        self._file: IO[Any] | None = None
        self._filled = 0

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish_shard()
        # With an exception, atomic_write removes its temporary file, and turns a full disk into one line.
        self._open.__exit__(kind, error, trace)

    def append(self, ids: Ids) -> None:
        """Append ids to the stream, over as many shards as they need."""
        while len(ids):
            if self._file is None:
                path = self._folder / shard_name(self._split, len(self.records))
                self._file = self._open.enter_context(atomic_write(path))
                self._file.write(header(0))
            part, ids = np.split(ids, [self._shard_tokens - self._filled])
            self._file.write(part.astype("<u2", copy=False).tobytes())
            self._filled += len(part)
            if self._filled == self._shard_tokens:
                self._finish_shard()

    def _finish_shard(self) -> None:
        if self._file is None:
            return
        self._file.seek(0)
        self._file.write(header(self._filled))
        self._open.close()
        name = shard_name(self._split, len(self.records))
        self.records.append(ShardRecord(name, self._filled, sha256_file(self._folder / name)))
        self._file, self._filled = None, 0
