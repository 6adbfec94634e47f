"""Prepare text: write a folder of token shards, tokenizer, validation text and manifest (see ``manifest.py``).

The text is read twice, so that memory holds neither all of it nor all tokens: once to find doubles, the split and a
sample for the tokenizer; once to tokenize. A document's split follows from its own bytes, so that more text never
moves a document from one split to the other, and equal documents never fall into both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from golfcore.data.contracts import BOS, TokenizerLike
from golfcore.data.hints import in_cache
from golfcore.data.manifest import (
    FORMAT,
    MANIFEST,
    TOKENIZER,
    VAL_TEXT,
    Manifest,
    Prepared,
    SplitRecord,
    doc_hash,
    doc_hash_name,
)
from golfcore.data.shards import TOKENS_PER_SHARD, ShardWriter, check_ids, read_header
from golfcore.data.text import Texts
from golfcore.data.val_text import write_val_text
from golfcore.disk import new_folder, require_new_folder
from golfcore.errors import FormatError, InputError, UsageError
from golfcore.paths import atomic_write, sha256_file
from golfcore.progress import Tick, silent
from golfcore.ranges import SOME_PART, THREADS, VOCAB

SAMPLE_BYTES = 256 << 20  # what a tokenizer is trained on, at most
HASHED_BYTES = 64 << 20  # files up to this size are hashed whole whenever they are opened
_BATCH_BYTES = 8 << 20  # text tokenized at a time
_KEYS = 1 << 64  # documents' 8-byte hashes, read as numbers


def prepare(
    paths: Sequence[Path],
    out_dir: Path,
    *,
    vocab_size: int = 1024,
    tokenizer: TokenizerLike | None = None,
    val_fraction: float = 0.07,
    threads: int = 0,
    shard_tokens: int = TOKENS_PER_SHARD,
    skip_invalid: bool = False,
    cache_key: str = "",
    tick: Tick = silent,
) -> Manifest:
    """Split, tokenize and store text; ``out_dir`` appears only when everything in it is complete.

    Documents with the same bytes as an earlier one are dropped. A document is validation when its hash falls into the
    lowest ``val_fraction`` of all hashes; if that leaves a split empty, the document nearest to the border goes there.

    Args:
        paths: files and folders as ``read_documents`` takes them.
        out_dir: a folder that does not exist or is empty.
        vocab_size: vocabulary of the tokenizer that is trained, on training documents only.
        tokenizer: a tokenizer to use instead of training one; ``vocab_size`` is then unused.
        threads: threads for training and encoding; 0 for all cores. The result does not depend on it.
        skip_invalid: whether documents that are no text are left out and counted, instead of an error.
        cache_key: the hash for which ``cached_prepare`` makes the folder.

    Raises:
        UsageError: a value outside its range, or a folder within the cache that ``cached_prepare`` did not name.
        InputError: unreadable text, fewer than two different documents, ``out_dir`` in the way, a full disk.
    """
    _check(out_dir, cache_key, val_fraction, threads, vocab_size if tokenizer is None else None)
    texts = Texts(paths, skip_invalid=skip_invalid)
    survey = _survey(texts, _describe(paths), val_fraction, sample=tokenizer is None, tick=tick)
    if tokenizer is None:
        tick(0, survey.text_bytes, "training the tokenizer")
        tokenizer = _train(survey.sample, vocab_size, threads)
    with new_folder(out_dir, last=MANIFEST) as folder:
        splits = _tokenize(texts, _describe(paths), folder, survey, tokenizer, threads, shard_tokens, tick)
        with atomic_write(folder / TOKENIZER) as f:
            f.write(tokenizer.to_bytes())
        manifest = Manifest(
            format=FORMAT,
            source=_describe(paths),
            source_sha256=survey.sha256,
            duplicates=survey.duplicates,
            val_fraction=float(val_fraction),
            tokenizer_sha256=tokenizer.sha256,
            vocab_size=tokenizer.vocab_size,
            val_text_sha256=sha256_file(folder / VAL_TEXT),
            train=splits["train"],
            val=splits["val"],
            cache_key=cache_key,
            reading=replace(texts.reading, first_invalid=""),  # it names a folder, and a manifest is passed on
        )
        manifest.save(folder)
    texts.tell(f"; {survey.duplicates:,} doubles dropped" if survey.duplicates else "")
    return manifest


def _check(out_dir: Path, cache_key: str, val_fraction: float, threads: int, vocab_size: int | None) -> None:
    SOME_PART.check("val_fraction", val_fraction)
    THREADS.check("threads", threads)
    if vocab_size is not None:
        VOCAB.check("vocab_size", vocab_size)  # before the text is read
    if in_cache(out_dir) and not cache_key:
        raise UsageError(
            f"{out_dir} is in golfcore's cache, where folders are named after their text: leave out -o to prepare into "
            "the cache, or choose another folder"
        )
    require_new_folder(out_dir)


def load_prepared(folder: Path) -> Prepared:
    """Open a prepared folder after a quick check: its files exist, and those up to 64 MiB have the manifest's hashes.

    ``golfcore.data.verify`` checks everything.

    Raises:
        InputError: the folder is not prepared, or a file of it is missing.
        FormatError: a file does not belong to the manifest.
    """
    manifest = Manifest.load(folder)
    hashes = {TOKENIZER: manifest.tokenizer_sha256, VAL_TEXT: manifest.val_text_sha256}
    for split in ("train", "val"):
        record = manifest.split(split)
        for shard in record.shards:
            tokens = read_header(folder / shard.name)
            if tokens != shard.tokens:
                raise FormatError(f"{folder / shard.name}: {tokens} tokens, the manifest says {shard.tokens}")
            hashes[shard.name] = shard.sha256
        if sum(s.tokens for s in record.shards) != record.tokens:
            raise FormatError(f"{folder}: the manifest's {split} shards do not add up to {record.tokens} tokens")
    for name, sha256 in hashes.items():
        path = folder / name
        if not path.is_file():
            raise InputError(f"{path}: missing; prepare the data again")
        if path.stat().st_size <= HASHED_BYTES and sha256_file(path) != sha256:
            raise FormatError(f"{path}: not the file that was prepared, its hash differs; prepare the data again")
    return Prepared(folder, manifest)


@dataclass(slots=True)
class _Survey:
    """Result of the first reading. Hashes are those of ``doc_hash``, as numbers."""

    threshold: int  # hashes below it are validation
    documents: int = 0
    duplicates: int = 0
    text_bytes: int = 0  # without duplicates
    sha256: str = ""
    sample: list[bytes] = field(default_factory=list)


def _key(document: bytes) -> int:
    return int.from_bytes(doc_hash(document), "big")


def _survey(texts: Texts, source: str, val_fraction: float, *, sample: bool, tick: Tick) -> _Survey:
    survey = _Survey(threshold=int(val_fraction * _KEYS))
    chosen = _Sample(SAMPLE_BYTES if sample else 0)
    seen: set[int] = set()
    stream = hashlib.sha256()
    for document in texts.documents():
        _update(stream, document)
        survey.documents += 1
        key = _key(document)
        if key in seen:
            survey.duplicates += 1
            continue
        seen.add(key)
        survey.text_bytes += len(document)
        chosen.add(key, document)
        if survey.documents % 1024 == 0:
            tick(0, 1, f"reading, {survey.documents:,} documents")
    if len(seen) < 2:
        raise InputError(
            f"{source}: {len(seen)} different document, expected at least 2 (one to train on, one to "
            'validate on); give more files, or a .jsonl file with one {"text": ...} per line'
        )
    lowest, highest = min(seen), max(seen)
    survey.threshold = min(max(survey.threshold, lowest + 1), highest)
    survey.sha256 = stream.hexdigest()
    survey.sample = [document for key, document in chosen.held if key >= survey.threshold]
    return survey


def _update(stream: hashlib._Hash, document: bytes) -> None:
    stream.update(len(document).to_bytes(8, "little"))
    stream.update(document)


class _Sample:
    """A uniform sample of documents by hash: the same text gives the same sample in any order, without a seed."""

    def __init__(self, max_bytes: int) -> None:
        self.held: list[tuple[int, bytes]] = []
        self._max_bytes = max_bytes
        self._bytes = 0
        self._limit = _KEYS if max_bytes else 0

    def add(self, key: int, document: bytes) -> None:
        if self._rank(key) >= self._limit:
            return
        self.held.append((key, document))
        self._bytes += len(document)
        while self._bytes > self._max_bytes and len(self.held) > 1:
            self._limit //= 2
            self.held = [(k, d) for k, d in self.held if self._rank(k) < self._limit]
            self._bytes = sum(len(d) for _, d in self.held)

    @staticmethod
    def _rank(key: int) -> int:
        # An odd factor permutes the 64-bit numbers: ranks are spread anew, whatever side of the split a key is on.
        return key * 0x9E3779B97F4A7C15 % _KEYS


def _train(sample: list[bytes], vocab_size: int, threads: int) -> TokenizerLike:
    from golfcore.tokenizer import Tokenizer

    trained: TokenizerLike = Tokenizer.train(sample, vocab_size, threads=threads)
    return trained


class _Split:
    """One split under construction: it takes documents and writes shards and hashes."""

    def __init__(self, writer: ShardWriter, tokenizer: TokenizerLike, threads: int) -> None:
        self.docs = self.tokens = self.bytes = 0
        self.hashes = bytearray()
        self._writer, self._tokenizer, self._threads = writer, tokenizer, threads
        self._token_bytes = tokenizer.token_bytes
        self._batch: list[bytes] = []
        self._batch_bytes = 0

    def add(self, document: bytes) -> None:
        self._batch.append(document)
        self._batch_bytes += len(document)
        self.hashes += doc_hash(document)
        if self._batch_bytes >= _BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        if not self._batch:
            return
        ids, offsets = self._tokenizer.encode_batch(self._batch, threads=self._threads)
        check_ids(ids, self._tokenizer.vocab_size, "the tokenizer")
        covered = int(self._token_bytes[ids].sum(dtype=np.int64))
        if covered != self._batch_bytes:
            raise InputError(
                f"the tokenizer's tokens cover {covered} of {self._batch_bytes} bytes of text; "
                "expected a byte-level tokenizer that loses nothing"
            )
        stream = np.insert(ids, offsets[:-1], BOS)
        self._writer.append(stream)
        self.docs += len(self._batch)
        self.tokens += len(stream)
        self.bytes += self._batch_bytes
        self._batch, self._batch_bytes = [], 0


def _tokenize(
    texts: Texts,
    source: str,
    folder: Path,
    survey: _Survey,
    tokenizer: TokenizerLike,
    threads: int,
    shard_tokens: int,
    tick: Tick,
) -> dict[str, SplitRecord]:
    """Read the text a second time and write all files but the tokenizer and the manifest."""
    seen: set[int] = set()
    stream = hashlib.sha256()
    val_documents: list[bytes] = []
    done = told = 0
    with ShardWriter(folder, "train", shard_tokens) as train_w, ShardWriter(folder, "val", shard_tokens) as val_w:
        train, val = (_Split(writer, tokenizer, threads) for writer in (train_w, val_w))
        for document in texts.documents():
            _update(stream, document)
            key = _key(document)
            if key in seen:
                continue
            seen.add(key)
            if key < survey.threshold:
                val.add(document)
                val_documents.append(document)
            else:
                train.add(document)
            done += len(document)
            if done - told >= 1 << 20:
                told = done
                tick(done, survey.text_bytes, "tokenizing")
        train.flush()
        val.flush()
    if stream.hexdigest() != survey.sha256:
        raise InputError(f"{source}: the text changed while it was read; run this again")
    write_val_text(folder / VAL_TEXT, val_documents)
    return {
        name: _record(folder, name, split, writer)
        for name, split, writer in (("train", train, train_w), ("val", val, val_w))
    }


def _record(folder: Path, name: str, split: _Split, writer: ShardWriter) -> SplitRecord:
    with atomic_write(folder / doc_hash_name(name)) as f:
        f.write(split.hashes)
    return SplitRecord(
        docs=split.docs,
        tokens=split.tokens,
        bytes=split.bytes,
        docs_sha256=hashlib.sha256(split.hashes).hexdigest(),
        shards=tuple(writer.records),
    )


def _describe(paths: Sequence[Path]) -> str:
    """Return the names of the text files without their folders, since a manifest is passed on to others."""
    names = [path.name or str(path) for path in paths]
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
