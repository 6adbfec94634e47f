"""Verify a folder of tokens: counts, hashes, and that no validation document is in training.

A prepared folder is checked down to the text: every document is decoded and hashed again. A folder of contest shards
has no manifest and perhaps no tokenizer; there, documents are compared by their tokens, which says the same, since one
tokenizer made both splits. Shards are read in pieces of a few million tokens.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from golfcore.data.contracts import BOS, SPECIAL_IDS, Ids, TokenizerLike
from golfcore.data.manifest import (
    DOC_HASH_BYTES,
    MANIFEST,
    TOKENIZER,
    VAL_TEXT,
    Manifest,
    Prepared,
    doc_hash,
    doc_hash_name,
)
from golfcore.data.shards import ShardSet, map_shard, shard_index, shard_name, split_files
from golfcore.errors import FormatError, GolfError, InputError
from golfcore.paths import sha256_file
from golfcore.progress import Tick, silent

CHUNK_TOKENS = 1 << 22
MAX_DOCUMENT_TOKENS = 1 << 28
CONTEST_VAL_DOCS = 50_000
_CONTEST_FOLDER = re.compile(r"fineweb10B_(?:sp|byte)(\d+)")
_SPLITS = ("train", "val")


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a folder: its name, whether it passed, and what was found."""

    name: str
    ok: bool
    detail: str


def verify(folder: Path, *, vocab_size: int | None = None, tick: Tick = silent) -> list[Check]:
    """Check a prepared folder or a folder of contest shards; it is sound if every check is ok.

    A failed check leaves out the later ones that depend on it.

    Args:
        vocab_size: every id must be below it; default: from the manifest, or from the contest folder's name.

    Raises:
        InputError: no such folder, or it holds neither a manifest nor a shard.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    run = _Run()
    if (folder / MANIFEST).exists():
        _verify_prepared(folder, run, tick)
    elif any(split_files(folder, split) for split in _SPLITS):
        _verify_contest(folder, vocab_size or _vocab_of_name(folder), run, tick)
    else:
        raise InputError(f"{folder}: neither {MANIFEST} nor {shard_name('val', 0)} in it; expected a folder of tokens")
    return run.checks


def check_files(folder: Path) -> str:
    """Check headers and hashes of all files of a prepared folder against its manifest, and return what was found.

    Raises:
        FormatError: a file is missing or differs.
    """
    manifest = Manifest.load(folder)
    try:
        return f"{_headers_match(folder, manifest)}; the hashes of {_hashes_match(folder, manifest)} agree"
    except OSError as error:
        raise FormatError(f"{folder}: cannot be read ({error.strerror or error})") from error


class _Run:
    """A list of checks; each ``probe`` returns a text on success and raises a GolfError on failure."""

    def __init__(self) -> None:
        self.checks: list[Check] = []

    def check(self, name: str, probe: Callable[[], str]) -> bool:
        try:
            self.checks.append(Check(name, True, probe()))
        except (GolfError, OSError) as error:
            self.checks.append(Check(name, False, str(error)))
        return self.checks[-1].ok


@dataclass(slots=True)
class _Scan:
    """Result of one pass over the tokens of a split."""

    tokens: int = 0
    max_id: int = 0
    other_specials: int = 0  # pad, eos, unk
    hashes: list[bytes] = field(default_factory=list)


DocHasher = Callable[[Ids, NDArray[np.int64]], list[bytes]]
"""Takes the ids of whole documents and the start of each; returns a hash per document."""


def _verify_prepared(folder: Path, run: _Run, tick: Tick) -> None:
    loaded: list[Manifest] = []

    def read_manifest() -> str:
        loaded.append(Manifest.load(folder))
        return f"format {loaded[0].format}, made from {loaded[0].source}"

    if not run.check("manifest", read_manifest):
        return
    manifest = loaded[0]
    if not run.check("shard headers", lambda: _headers_match(folder, manifest)):
        return
    if not run.check("file hashes", lambda: _hashes_match(folder, manifest)):
        return
    prepared = Prepared(folder, manifest)
    opened: list[TokenizerLike] = []
    if not run.check("tokenizer", lambda: _tokenizer_matches(prepared, opened)):
        return
    scans: dict[str, _Scan] = {}
    for split in _SPLITS:
        decoder = _Decoder(opened[0])
        tokens = partial(_scan_split, prepared.shards(split), split, manifest.vocab_size, decoder, scans, tick)
        if not run.check(f"{split} tokens", tokens):
            return
        run.check(f"{split} text", partial(_text_matches, prepared, split, scans[split], decoder))
    run.check("splits disjoint", lambda: _disjoint(scans))


def _verify_contest(folder: Path, vocab_size: int | None, run: _Run, tick: Tick) -> None:
    files = {split: split_files(folder, split) for split in _SPLITS}
    if not run.check("shard headers", lambda: _contest_headers(files)):
        return
    if sidecars := split_files(folder, "val_bytes"):
        run.check("byte counts", lambda: _sidecars_match(files["val"], sidecars))
    scans: dict[str, _Scan] = {}
    for split in (s for s in _SPLITS if files[s]):
        tokens = partial(_scan_split, ShardSet(files[split]), split, vocab_size, _hash_tokens, scans, tick)
        if not run.check(f"{split} tokens", tokens):
            return
    if folder.name.startswith("fineweb10B_"):
        run.check("whole validation", lambda: _whole_validation(scans["val"]))
    if "train" in scans:
        run.check("splits disjoint", lambda: _disjoint(scans))


def _vocab_of_name(folder: Path) -> int | None:
    match = _CONTEST_FOLDER.match(folder.name)
    return int(match[1]) if match else None


def _headers_match(folder: Path, manifest: Manifest) -> str:
    counts = []
    for split in _SPLITS:
        record = manifest.split(split)
        found = [path.name for path in split_files(folder, split)]
        named = [shard.name for shard in record.shards]
        if found != named or not named:
            raise FormatError(f"{split} shards are {found}, the manifest names {named}")
        for shard in record.shards:
            tokens = len(map_shard(folder / shard.name))
            if tokens != shard.tokens:
                raise FormatError(f"{shard.name}: {tokens} tokens, the manifest says {shard.tokens}")
        total = sum(shard.tokens for shard in record.shards)
        if total != record.tokens:
            raise FormatError(f"{split}: shards hold {total} tokens, the manifest says {record.tokens}")
        counts.append(f"{split} {total:,} tokens in {len(named)}")
    return ", ".join(counts)


def _contest_headers(files: dict[str, list[Path]]) -> str:
    if not files["val"]:
        raise FormatError(f"no {shard_name('val', 0)}; fetch the validation shards too")
    counts = []
    for split, paths in files.items():
        if not paths:
            counts.append(f"no {split} shards")
            continue
        indices = [shard_index(path) for path in paths]
        first = 0 if split == "val" else indices[0]
        if indices != list(range(first, first + len(indices))):
            missing = sorted(set(range(first, indices[-1] + 1)) - set(indices))
            raise FormatError(f"{split}: shard {missing[0]} is missing; fetch it again")
        counts.append(f"{split} {sum(len(map_shard(p)) for p in paths):,} tokens in {len(paths)}")
    return ", ".join(counts)


def _hashes_match(folder: Path, manifest: Manifest) -> str:
    expected = {TOKENIZER: manifest.tokenizer_sha256, VAL_TEXT: manifest.val_text_sha256}
    for split in _SPLITS:
        record = manifest.split(split)
        expected[doc_hash_name(split)] = record.docs_sha256
        expected |= {shard.name: shard.sha256 for shard in record.shards}
    for name, sha256 in expected.items():
        found = sha256_file(folder / name)
        if found != sha256:
            raise FormatError(f"{name}: sha256 {found[:16]}..., the manifest says {sha256[:16]}...")
    return f"{len(expected)} files"


def _tokenizer_matches(prepared: Prepared, opened: list[TokenizerLike]) -> str:
    tokenizer = prepared.tokenizer()
    size, expected = tokenizer.vocab_size, prepared.manifest.vocab_size
    if size != expected or len(tokenizer.token_bytes) != expected:
        raise FormatError(f"{TOKENIZER}: {size} tokens, the manifest says {expected}")
    opened.append(tokenizer)
    return f"{size} tokens"


def _sidecars_match(shards: list[Path], sidecars: list[Path]) -> str:
    if [shard_index(p) for p in shards] != [shard_index(p) for p in sidecars]:
        raise FormatError(f"{len(sidecars)} files of byte counts for {len(shards)} validation shards")
    total = 0
    for shard, sidecar in zip(shards, sidecars, strict=True):
        ids, sizes = map_shard(shard), map_shard(sidecar)
        if len(ids) != len(sizes):
            raise FormatError(f"{sidecar.name}: {len(sizes)} counts for {len(ids)} tokens")
        total += int(sizes.sum(dtype=np.int64))
    return f"{total:,} bytes of text"


def whole_documents(shards: ShardSet, chunk_tokens: int = CHUNK_TOKENS) -> Iterator[tuple[Ids, NDArray[np.int64]]]:
    """Yield pieces of the stream that hold whole documents: the ids, and the positions of each BOS in them.

    Raises:
        FormatError: the stream does not start with BOS, or a document is longer than 2^28 tokens.
    """
    if int(shards[:1][0]) != BOS:
        raise FormatError(f"{shards.files[0].name}: starts with id {int(shards[:1][0])}, expected BOS = {BOS}")
    at, size = 0, chunk_tokens
    while at < len(shards):
        ids = shards[at : at + size]
        starts = np.flatnonzero(ids == BOS)
        if at + len(ids) < len(shards):
            if len(starts) < 2:  # the piece is within one document: look further
                if size >= MAX_DOCUMENT_TOKENS:
                    raise FormatError(f"no BOS in {size} tokens from token {at}; expected one at each document's start")
                size *= 2
                continue
            ids, starts = ids[: starts[-1]], starts[:-1]
        yield ids, starts
        at, size = at + len(ids), chunk_tokens


def _hash_tokens(ids: Ids, starts: NDArray[np.int64]) -> list[bytes]:
    """Return a hash per document without a tokenizer: that of its little-endian ids without BOS."""
    raw = memoryview(ids.astype("<u2", copy=False).tobytes())
    ends = np.append(starts[1:], len(ids))
    spans = zip((2 * starts + 2).tolist(), (2 * ends).tolist(), strict=True)
    return [hashlib.sha256(raw[a:b]).digest()[:DOC_HASH_BYTES] for a, b in spans]


class _Decoder:
    """A hasher of decoded documents; it also keeps the hash of the whole text, to compare it exactly."""

    def __init__(self, tokenizer: TokenizerLike) -> None:
        self._decode, self._token_bytes = tokenizer.decode, tokenizer.token_bytes
        self.bytes = 0
        self.lengths: list[int] = []
        self.sha256 = hashlib.sha256()

    def __call__(self, ids: Ids, starts: NDArray[np.int64]) -> list[bytes]:
        text = self._decode(ids)
        before = np.concatenate(([0], np.cumsum(self._token_bytes[ids], dtype=np.int64)))
        if before[-1] != len(text):
            raise FormatError(f"tokens decode to {len(text)} bytes, the tokenizer's table says {before[-1]}")
        bounds = before[np.append(starts, len(ids))].tolist()
        self.bytes += len(text)
        self.lengths += np.diff(bounds).tolist()
        self.sha256.update(text)
        return [doc_hash(text[a:b]) for a, b in pairwise(bounds)]


def _scan_split(
    shards: ShardSet, split: str, vocab_size: int | None, hasher: DocHasher, scans: dict[str, _Scan], tick: Tick
) -> str:
    scan = _Scan()
    for ids, starts in whole_documents(shards):
        scan.max_id = max(scan.max_id, int(ids.max()))
        if vocab_size is not None and scan.max_id >= vocab_size:
            at = scan.tokens + int(np.argmax(ids >= vocab_size))
            raise FormatError(f"id {scan.max_id} at token {at}, expected below vocab_size = {vocab_size}")
        scan.other_specials += int(np.count_nonzero(ids < SPECIAL_IDS)) - len(starts)
        scan.hashes += hasher(ids, starts)
        scan.tokens += len(ids)
        tick(scan.tokens, len(shards), split)
    scans[split] = scan
    specials = f", {scan.other_specials:,} pad/eos/unk" if scan.other_specials else ""
    return f"{len(scan.hashes):,} documents, {scan.tokens:,} tokens, largest id {scan.max_id}{specials}"


def _text_matches(prepared: Prepared, split: str, scan: _Scan, text: _Decoder) -> str:
    """Compare counts and document hashes of the decoded tokens with the manifest; for val every byte."""
    record = prepared.manifest.split(split)
    if scan.other_specials:
        raise FormatError(f"{scan.other_specials} pad, eos or unk tokens, expected none")
    if (len(scan.hashes), text.bytes) != (record.docs, record.bytes):
        found = f"{len(scan.hashes)} documents of {text.bytes} bytes"
        raise FormatError(f"{found}, the manifest says {record.docs} of {record.bytes}")
    stored = (prepared.folder / doc_hash_name(split)).read_bytes()
    if b"".join(scan.hashes) != stored:
        raise FormatError(f"the documents' hashes are not those of {doc_hash_name(split)}")
    if split == "val":
        documents = prepared.val_documents()
        same = hashlib.sha256(b"".join(documents)).digest() == text.sha256.digest()
        if not same or [len(d) for d in documents] != text.lengths:
            raise FormatError(f"the tokens do not decode to the text in {VAL_TEXT}")
    return f"{text.bytes:,} bytes, {text.bytes / max(1, scan.tokens - len(scan.hashes)):.3f} per token"


def _whole_validation(val: _Scan) -> str:
    if len(val.hashes) != CONTEST_VAL_DOCS:
        raise FormatError(
            f"{len(val.hashes):,} validation documents, the contest's split has {CONTEST_VAL_DOCS:,}; "
            "a score on these is no score on the contest's validation text"
        )
    return f"{CONTEST_VAL_DOCS:,} documents"


def _disjoint(scans: dict[str, _Scan]) -> str:
    train = {digest: at for at, digest in enumerate(scans["train"].hashes)}
    shared = [(at, train[digest]) for at, digest in enumerate(scans["val"].hashes) if digest in train]
    if shared:
        raise FormatError(
            f"{len(shared)} of {len(scans['val'].hashes)} validation documents are in training, the first as "
            f"validation document {shared[0][0]} = training document {shared[0][1]}"
        )
    return f"none of {len(scans['val'].hashes):,} validation documents is among {len(train):,} in training"
