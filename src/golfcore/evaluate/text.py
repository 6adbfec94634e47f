"""Load the text to score, from a prepared folder or from the contest's shards with a byte table."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from golfcore.data.contracts import BOS, Ids
from golfcore.data.manifest import Prepared
from golfcore.data.prepare import load_prepared
from golfcore.data.shards import ShardSet, split_files
from golfcore.data.tokens import Tokens
from golfcore.data.variants import VAL_BYTES, VAL_DOCUMENTS, VAL_ROW, of_folder
from golfcore.errors import InputError, RuleError
from golfcore.evaluate.scorer import ScoredText
from golfcore.tokenizer import Tokenizer


def documents_text(documents: Sequence[bytes], tokenizer: Tokenizer) -> ScoredText:
    """Encode documents for the scorer: a BOS before each, bytes counted on the documents themselves.

    Raises:
        RuleError: a document does not decode to itself, or the table counts other bytes; names the first token.
    """
    ids, offsets = tokenizer.encode_batch(documents)
    digest = hashlib.sha256()
    for i, document in enumerate(documents):
        own = ids[offsets[i] : offsets[i + 1]]
        if tokenizer.decode(own) != document or int(tokenizer.token_bytes[own].sum()) != len(document):
            raise RuleError(f"document {i} {_first_difference(document, own, tokenizer)}")
        digest.update(len(document).to_bytes(8, "little") + document)
    stream = np.insert(ids, offsets[:-1], BOS)
    return ScoredText(
        tokens=stream,
        token_bytes=tokenizer.token_bytes[stream].astype(np.int64),
        total_bytes=sum(map(len, documents)),
        sha256=digest.hexdigest(),
    )


def _first_difference(document: bytes, ids: Ids, tokenizer: Tokenizer) -> str:
    """Return in words where document, decoded tokens and table first differ."""
    at = 0
    for number, token in enumerate(ids.tolist()):
        spelled, counted = tokenizer.decode(ids[number : number + 1]), int(tokenizer.token_bytes[token])
        if document[at : at + len(spelled)] != spelled:
            there = document[at : at + len(spelled)][:20]
            return (
                f"does not decode to itself: its token {number} (id {token}) gives {spelled[:20]!r}, the text has "
                f"{there!r}; the tokenizer loses text"
            )
        if counted != len(spelled):
            return (
                f"has other bytes than the table says: its token {number} (id {token}) decodes to {len(spelled)} "
                f"bytes, the byte table counts {counted}; no score would be right"
            )
        at += len(spelled)
    return f"does not decode to itself: its tokens give {at} of its {len(document)} bytes; the tokenizer loses text"


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

    There is no text beside the shards. Bytes are those of the files of byte counts (``fineweb_val_bytes_*.bin``), if
    there are any, else the table's; what is known of the contest's whole split is compared with both.

    Args:
        folder: holds ``fineweb_val_*.bin``.
        count_bytes: returns the bytes of text of each target ``ids[1:]`` given the token before it, such as
            ``SentencePieceTable.count_bytes``.
        seq_len: the contest's row length.

    Raises:
        InputError: fewer tokens than one row.
        RuleError: byte counts that do not fit the tokens or the known split.
    """
    tokens = ShardSet.of_split(folder, "val")[:]
    rows = (len(tokens) - 1) // seq_len
    if rows < 1:
        raise InputError(f"{folder}: {len(tokens)} validation tokens, fewer than one row of {seq_len}")
    sidecar = _sidecar(folder, tokens)
    tokens = np.ascontiguousarray(tokens[: rows * seq_len + 1])
    counted = count_bytes(tokens) if sidecar is None else sidecar[1 : len(tokens)]
    token_bytes = np.insert(counted.astype(np.int64), 0, 0)  # the first token is never a target
    return ScoredText(
        tokens=tokens,
        token_bytes=token_bytes,
        total_bytes=int(token_bytes.sum()),
        sha256=hashlib.sha256(tokens.astype("<u2").tobytes()).hexdigest(),
        split=known_split(folder, tokens, int(token_bytes.sum()), seq_len),
    )


def _sidecar(folder: Path, tokens: Ids) -> Ids | None:
    """Return the byte counts beside the shards, one per token; None if there are none."""
    files = split_files(folder, "val_bytes")
    if not files:
        return None
    counts = ShardSet(files)[:]
    if len(counts) != len(tokens):
        raise RuleError(
            f"{folder}: {len(counts):,} byte counts (fineweb_val_bytes_*.bin) for {len(tokens):,} validation tokens: "
            "fetch both again"
        )
    if (odd := np.flatnonzero((tokens == BOS) & (counts != 0))).size:
        at = int(odd[0])
        raise RuleError(
            f"{folder}: token {at:,} begins a document, and the byte counts give it {counts[at]} bytes, not 0"
        )
    return counts


def known_split(folder: Path, tokens: Ids, total_bytes: int, seq_len: int) -> str:
    """Return what is known of a validation split in a folder that is named as the contest's; "" for any other.

    Args:
        folder: the folder of shards.
        tokens: the split, cut to whole rows.
        total_bytes: bytes of its targets.
        seq_len: the length of a row.

    Raises:
        RuleError: all tokens are there, but other bytes than the split has.
    """
    variant = of_folder(folder)
    if variant is None or not variant.val_targets:
        return ""
    targets, documents = len(tokens) - 1, int((tokens == BOS).sum())
    if abs(targets - variant.val_targets) >= max(seq_len, VAL_ROW):
        return (
            f"not the contest's whole split: {targets:,} tokens of {documents:,} documents, the split has "
            f"{variant.val_targets:,} of {VAL_DOCUMENTS:,}: no score for a record"
        )
    if abs(total_bytes - VAL_BYTES) > VAL_BYTES / 1000:
        more = "; fineweb_val_bytes_*.bin are missing beside the shards" if variant.byte_counts else ""
        raise RuleError(
            f"{folder}: the whole split has about {VAL_BYTES:,} bytes, {total_bytes:,} were counted: the denominator "
            f"is wrong{more}"
        )
    return f"the contest's whole split: {documents:,} documents, {targets:,} tokens, {total_bytes:,} bytes, as known"
