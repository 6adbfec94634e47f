"""The files of a prepared folder, and the manifest that lists their counts and hashes.

fineweb_train_*.bin  fineweb_val_*.bin   token shards
tokenizer.bpe                            the tokenizer that made them
val_text.zst                             the validation documents' exact bytes
train_docs.sha  val_docs.sha             the first 8 bytes of each document's SHA-256, in the shards' order
manifest.json                            counts and hashes of all of these
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from golfcore.data.hints import how_to_prepare
from golfcore.data.shards import ShardRecord, ShardSet
from golfcore.data.text_files import Reading
from golfcore.data.val_text import read_val_text
from golfcore.errors import FormatError, InputError
from golfcore.paths import atomic_write
from golfcore.ranges import Bytes, Count, SomePart, SomeSize, field_types, range_of, shown

if TYPE_CHECKING:
    from golfcore.tokenizer import Tokenizer

FORMAT = 1
MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.bpe"
VAL_TEXT = "val_text.zst"
DOC_HASH_BYTES = 8
_MAX_MANIFEST_BYTES = 64 << 20

T = TypeVar("T")


def doc_hash(document: bytes) -> bytes:
    """Return the 8 bytes that stand for a document: they choose its split and prove that the splits are disjoint."""
    return hashlib.sha256(document).digest()[:DOC_HASH_BYTES]


def doc_hash_name(split: str) -> str:
    """Return ``train_docs.sha`` or ``val_docs.sha``."""
    return f"{split}_docs.sha"


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitRecord:
    """Counts of one split: ``tokens`` includes BOS, ``bytes`` is the UTF-8 length of the text."""

    docs: Count
    tokens: Count
    bytes: Bytes
    docs_sha256: str  # of train_docs.sha or val_docs.sha
    shards: tuple[ShardRecord, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """The content of ``manifest.json``."""

    format: Count
    source: str
    source_sha256: str  # over every document read, each with its length before it
    duplicates: Count  # documents dropped because the same bytes came before
    val_fraction: SomePart
    tokenizer_sha256: str
    vocab_size: SomeSize
    val_text_sha256: str
    train: SplitRecord
    val: SplitRecord
    cache_key: str  # in the cache: the hash of text, settings and version that this folder was made for
    reading: Reading | None  # counts of what was read and left out; None in manifests of earlier versions

    def split(self, name: str) -> SplitRecord:
        """Return the record of ``train`` or ``val``."""
        return {"train": self.train, "val": self.val}[name]

    def as_tree(self) -> dict[str, Any]:
        """Return the manifest as values that JSON can hold."""
        return dataclasses.asdict(self)

    def save(self, folder: Path) -> None:
        """Write ``manifest.json`` into the folder."""
        with atomic_write(folder / MANIFEST) as f:
            f.write(json.dumps(self.as_tree(), indent=1).encode() + b"\n")

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read and check ``manifest.json``, but not the files that it names.

        Raises:
            InputError: the folder has no manifest.
            FormatError: the file is not a manifest of golfcore.
        """
        path = folder / MANIFEST
        try:
            with path.open("rb") as f:
                raw = f.read(_MAX_MANIFEST_BYTES + 1)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); {how_to_prepare(folder)}") from error
        if len(raw) > _MAX_MANIFEST_BYTES:
            raise FormatError(f"{path}: more than {_MAX_MANIFEST_BYTES} bytes")
        try:
            tree = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{path}: not JSON ({error}); prepare the data again") from error
        if not isinstance(tree, dict) or tree.get("format") != FORMAT:
            found = tree.get("format") if isinstance(tree, dict) else None
            raise FormatError(f"{path}: format {found!r}, expected {FORMAT}; prepare the data again")
        where = str(path)
        for split in ("train", "val"):
            record = _table(tree.get(split), f"{where}: {split}")
            rows = record.get("shards")
            if not isinstance(rows, list):
                raise FormatError(f"{where}: {split}.shards is not a list")
            record["shards"] = tuple(_build(ShardRecord, _table(r, f"{where}: {split}.shards"), where) for r in rows)
            tree[split] = _build(SplitRecord, record, f"{where}: {split}")
        tree.setdefault("cache_key", "")
        tree["reading"] = _reading(tree.get("reading"), f"{where}: reading")
        return _build(cls, tree, where)


def _reading(value: object, where: str) -> Reading | None:
    if value is None:
        return None
    table = _table(value, where)
    left_out = _table(table.get("left_out"), f"{where}.left_out")
    if bad := next((n for n in left_out.values() if not isinstance(n, int) or n < 0), None):
        raise FormatError(f"{where}.left_out: {bad!r}, expected counts")
    return _build(Reading, table, where)


def _table(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FormatError(f"{where}: expected a table, found {type(value).__name__}")
    return dict(value)


def _build(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Build ``cls`` from exactly its fields, each of its own type, and each number in its range."""
    fields = field_types(cls)
    if values.keys() != fields.keys():
        odd = sorted(values.keys() ^ fields.keys())
        raise FormatError(f"{where}: missing or unknown keys {', '.join(map(str, odd))}; prepare the data again")
    for name, kind in fields.items():
        if allowed := range_of(kind):
            allowed.check(f"{where}: {name}", values[name], FormatError)
        elif kind is str and not isinstance(values[name], str):
            raise FormatError(f"{where}: {name} = {shown(values[name])}: expected a text")
    return cls(**values)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prepared folder, its files and sizes checked (``golfcore.data.prepare.load_prepared``)."""

    folder: Path
    manifest: Manifest

    def shards(self, split: str) -> ShardSet:
        """Return the tokens of ``train`` or ``val``."""
        return ShardSet([self.folder / s.name for s in self.manifest.split(split).shards])

    def tokenizer(self) -> Tokenizer:
        """Load the tokenizer that made the tokens."""
        from golfcore.tokenizer import Tokenizer

        return Tokenizer.load(self.folder / TOKENIZER)

    def val_documents(self) -> list[bytes]:
        """Load the exact bytes of the validation documents, in the order of the tokens."""
        return read_val_text(self.folder / VAL_TEXT)
