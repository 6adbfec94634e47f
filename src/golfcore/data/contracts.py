"""The interfaces that data needs: a tokenizer, and a source of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

BOS = 1
"""The id that starts a document."""

SPECIAL_IDS = 4
"""Ids 0 pad, 1 bos, 2 eos, 3 unk stand for no text."""

Ids = NDArray[np.uint16]


class Documents(NamedTuple):
    """A rule that cuts rows of tokens into segments, which attention does not cross.

    A segment starts at each row, at each ``bos``, and again after ``max_segment`` tokens; 0 for no limit.
    """

    bos: int
    max_segment: int = 0


class TokenBatch(NamedTuple):
    """One rank's share of a step.

    Attributes:
        inputs_BT: uint16 [B, T].
        targets_BT: the same, one token ahead.
        bounds: int32 bounds of the segments over all rows end to end, from 0 to B T; None if rows are not cut.
    """

    inputs_BT: Ids
    targets_BT: Ids
    bounds: NDArray[np.int32] | None = None


class TokenizerLike(Protocol):
    """The methods of ``golfcore.tokenizer.Tokenizer`` that data needs."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def token_bytes(self) -> NDArray[np.int32]:
        """Byte length of each id, shape ``[vocab_size]``; 0 for special ids."""
        ...

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of ``to_bytes()``."""
        ...

    def encode_batch(self, docs: Sequence[bytes], threads: int = 0) -> tuple[Ids, NDArray[np.int64]]:
        """Return the ids of all documents end to end, without BOS, and where each begins (``n + 1`` offsets)."""
        ...

    def decode(self, ids: Ids) -> bytes: ...

    def to_bytes(self) -> bytes: ...


class TokenSource(Protocol):
    """Tokens as one array that is read in slices: a ``golfcore.data.shards.ShardSet``, or a part of one."""

    def __len__(self) -> int: ...

    def __getitem__(self, where: slice) -> Ids: ...
