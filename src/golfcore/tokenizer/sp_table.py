"""Count the bytes of text that each token of a contest SentencePiece model stands for.

A byte piece is 1 byte; control, unknown and unused pieces are 0; any other piece is its UTF-8 length without the
leading mark U+2581, plus 1 for that mark (a space) unless the token before is control, unknown or unused. The text
counted is the one that SentencePiece has normalized. Operators of a text transform (the CaseOps
variant) are pieces like any other here: count the bytes of such data by the file of byte counts beside each shard.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golfcore.errors import FormatError, InputError

SPACE_MARK = "\u2581"

ROW = np.dtype([("base_bytes", np.int32), ("leading_space", np.bool_), ("boundary", np.bool_)])
"""Row of one id: bytes without the leading mark, whether it has one, whether it is control, unknown or unused."""


def sp_byte_table(model_path: Path | str) -> NDArray[np.void]:
    """Load the byte table of a SentencePiece model: rows of ``ROW`` per id, ``[vocab_size]``.

    Raises:
        InputError: the model cannot be read, or sentencepiece is not installed.
        FormatError: the file is not a SentencePiece model.
    """
    try:
        import sentencepiece
    except ImportError as error:
        raise InputError("sentencepiece is not installed; run: pip install 'golfcore[sentencepiece]'") from error
    try:
        content = Path(model_path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the model {model_path}: {error.strerror or error}") from error
    model = sentencepiece.SentencePieceProcessor()
    try:
        model.LoadFromSerializedProto(content)
        return _rows(model)
    except (RuntimeError, UnicodeDecodeError) as error:
        raise FormatError(f"{model_path}: not a SentencePiece model") from error


def _rows(model: Any) -> NDArray[np.void]:
    table = np.zeros(model.vocab_size(), ROW)
    for i, row in enumerate(table):
        if model.is_control(i) or model.is_unknown(i) or model.is_unused(i):
            row["boundary"] = True
        elif model.is_byte(i):
            row["base_bytes"] = 1
        else:
            piece: str = model.id_to_piece(i)
            row["leading_space"] = piece.startswith(SPACE_MARK)
            row["base_bytes"] = len(piece.removeprefix(SPACE_MARK).encode())
    return table


class SentencePieceTable:
    """A table that counts the bytes of token sequences.

    Args:
        table: rows of ``ROW``, one per id, as ``sp_byte_table`` makes them.
    """

    def __init__(self, table: NDArray[np.void]) -> None:
        self._base: NDArray[np.int32] = np.ascontiguousarray(table["base_bytes"])
        self._leading: NDArray[np.bool_] = np.ascontiguousarray(table["leading_space"])
        self._text: NDArray[np.bool_] = ~table["boundary"]

    @classmethod
    def load(cls, model_path: Path | str) -> SentencePieceTable:
        """Load the table of a SentencePiece model file; raises as ``sp_byte_table`` does."""
        return cls(sp_byte_table(model_path))

    @property
    def vocab_size(self) -> int:
        return len(self._base)

    def count_bytes(self, ids: NDArray[np.integer]) -> NDArray[np.int32]:
        """Return the bytes of each target ``ids[1:]``, given the token before it.

        Args:
            ids: a stream ``[n]`` as it is scored: the first id is only context.

        Returns:
            Bytes per target, ``[max(n - 1, 0)]``.

        Raises:
            InputError: an id outside the vocabulary.
        """
        if ids.size and not 0 <= ids.min() <= ids.max() < self.vocab_size:
            raise InputError(f"ids from {ids.min()} to {ids.max()}, expected 0 to {self.vocab_size - 1}")
        before, target = ids[:-1], ids[1:]
        counts: NDArray[np.int32] = self._base[target] + (self._leading[target] & self._text[before])
        return counts
