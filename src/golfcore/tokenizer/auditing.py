"""Audit a tokenizer on a text: prove that it loses nothing and that its table of bytes per token is right."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from golfcore.tokenizer.bpe import FIRST_BYTE, Tokenizer


@dataclass(frozen=True, slots=True)
class Audit:
    """The result of an audit. Seconds count only encoding and decoding."""

    documents: int
    tokens: int
    text_bytes: int
    """Bytes of the documents themselves."""
    table_bytes: int
    """Bytes by the tokenizer's table of bytes per token."""
    decoded_bytes: int
    """Bytes of the decoded tokens."""
    wrong: int
    """Number of documents that do not come back exactly, or whose bytes the table counts differently."""
    first_wrong: int | None
    """Number of the first such document, counted from 0."""
    unused_ids: int
    """Number of ids of bytes and merges that do not occur in this text."""
    encode_s: float
    decode_s: float

    @property
    def ok(self) -> bool:
        return self.wrong == 0 and self.text_bytes == self.table_bytes == self.decoded_bytes

    @property
    def bytes_per_token(self) -> float:
        return self.text_bytes / self.tokens if self.tokens else 0.0


def audit(tokenizer: Tokenizer, docs: Iterable[bytes], threads: int = 0, *, batch_bytes: int = 32 << 20) -> Audit:
    """Encode and decode every document; compare the text and its number of bytes with the byte table.

    Args:
        tokenizer: the tokenizer to check.
        docs: the documents, read once.
        threads: threads for encoding; 0 for all cores.
        batch_bytes: bytes of text held at a time.
    """
    seen = np.zeros(tokenizer.vocab_size, np.int64)
    documents = tokens = text_bytes = table_bytes = decoded_bytes = wrong = 0
    first_wrong: int | None = None
    encode_s = decode_s = 0.0
    for batch in _batches(docs, batch_bytes):
        start = time.perf_counter()
        ids, offsets = tokenizer.encode_batch(batch, threads)
        encode_s += time.perf_counter() - start
        seen += np.bincount(ids, minlength=tokenizer.vocab_size)
        ends = np.concatenate(([0], np.cumsum(tokenizer.token_bytes[ids], dtype=np.int64)))[offsets]
        for i, doc in enumerate(batch):
            start = time.perf_counter()
            decoded = tokenizer.decode(ids[offsets[i] : offsets[i + 1]])
            decode_s += time.perf_counter() - start
            decoded_bytes += len(decoded)
            if decoded != doc or ends[i + 1] - ends[i] != len(doc):
                wrong += 1
                first_wrong = documents + i if first_wrong is None else first_wrong
        documents += len(batch)
        tokens += len(ids)
        text_bytes += sum(map(len, batch))
        table_bytes += int(ends[-1])
    unused = int(np.count_nonzero(seen[FIRST_BYTE:] == 0))
    return Audit(
        documents, tokens, text_bytes, table_bytes, decoded_bytes, wrong, first_wrong, unused, encode_s, decode_s
    )


def _batches(docs: Iterable[bytes], batch_bytes: int) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for doc in docs:
        batch.append(doc)
        size += len(doc)
        if size >= batch_bytes:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
