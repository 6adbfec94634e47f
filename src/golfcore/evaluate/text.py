"""Load the text to score, from a prepared folder or from the contest's shards with a byte table."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from golfcore.data.contracts import BOS
from golfcore.data.manifest import Prepared
from golfcore.data.prepare import load_prepared
from golfcore.data.shards import ShardSet
from golfcore.data.tokens import Tokens
from golfcore.errors import InputError, RuleError
from golfcore.evaluate.scorer import ScoredText
from golfcore.tokenizer import Tokenizer


def documents_text(documents: Sequence[bytes], tokenizer: Tokenizer) -> ScoredText:
    """Encode documents for the scorer: a BOS before each, bytes counted on the documents themselves.

    Raises:
        RuleError: a document does not decode to itself.
    """
    ids, offsets = tokenizer.encode_batch(documents)
    digest = hashlib.sha256()
    for i, document in enumerate(documents):
        if tokenizer.decode(ids[offsets[i] : offsets[i + 1]]) != document:
            raise RuleError(f"document {i} does not decode to itself; the tokenizer loses text")
        digest.update(len(document).to_bytes(8, "little") + document)
    stream = np.insert(ids, offsets[:-1], BOS)
    return ScoredText(
        tokens=stream,
        token_bytes=tokenizer.token_bytes[stream].astype(np.int64),
        total_bytes=sum(map(len, documents)),
        sha256=digest.hexdigest(),
    )


def validation_text(tokens: Tokens, seq_len: int) -> ScoredText:
    """Return the validation text of a run's tokens.

    Args:
        tokens: a prepared folder, whose text is scored whole, or the contest's shards.
        seq_len: the row length to which the contest's split is cut.
    """
    if tokens.prepared:
        return prepared_text(load_prepared(tokens.folder))
    return contest_text(tokens.folder, tokens.count_bytes, seq_len)


def prepared_text(prepared: Prepared) -> ScoredText:
    """Load the validation text of a prepared folder and encode it again; it must give the tokens of the shards.

    Raises:
        RuleError: tokens, table and text disagree.
    """
    text = documents_text(prepared.val_documents(), prepared.tokenizer())
    stored = prepared.shards("val")
    if len(stored) != len(text.tokens) or not np.array_equal(stored[:], text.tokens):
        raise RuleError(
            f"{prepared.folder}: the validation shards are not the validation text's tokens; "
            "run golfcore data verify, or prepare the data again"
        )
    return text


def contest_text(folder: Path, count_bytes: Callable[[np.ndarray], np.ndarray], seq_len: int) -> ScoredText:
    """Load the contest's validation split: all shards joined, cut to whole rows of ``seq_len`` targets.

    There is no text beside the shards, so the bytes are counted with the table of token bytes.

    Args:
        folder: holds ``fineweb_val_*.bin``.
        count_bytes: returns the bytes of text of each target ``ids[1:]`` given the token before it, such as
            ``SentencePieceTable.count_bytes``.
        seq_len: the contest's row length.

    Raises:
        InputError: fewer tokens than one row.
    """
    tokens = ShardSet.of_split(folder, "val")[:]
    rows = (len(tokens) - 1) // seq_len
    if rows < 1:
        raise InputError(f"{folder}: {len(tokens)} validation tokens, fewer than one row of {seq_len}")
    tokens = np.ascontiguousarray(tokens[: rows * seq_len + 1])
    token_bytes = np.insert(count_bytes(tokens).astype(np.int64), 0, 0)  # the first token is never a target
    return ScoredText(
        tokens=tokens,
        token_bytes=token_bytes,
        total_bytes=int(token_bytes.sum()),
        sha256=hashlib.sha256(tokens.astype("<u2").tobytes()).hexdigest(),
    )
