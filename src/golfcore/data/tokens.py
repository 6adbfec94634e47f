"""Open the tokens of a run: text prepared into the cache, a prepared folder, or the contest's shards.

A run knows its data: its config holds hashes of text, tokenizer and tokens, and so do its checkpoints. ``open_run``
compares what it opens with them, so that no stage of a run reads other data than the stages before it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from golfcore.config import RecipeConfig
from golfcore.data.hints import default_text_path, how_to_prepare, in_cache
from golfcore.errors import FormatError, InputError, UsageError
from golfcore.paths import sha256_file, stored_path, user_path
from golfcore.progress import Tick, silent

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from golfcore.data.manifest import Manifest
    from golfcore.data.shards import ShardSet
    from golfcore.disk import Lock
    from golfcore.tokenizer import SentencePieceTable, Tokenizer


HASHED_BYTES = 64 << 20  # files up to this size are hashed whole; hashing the contest's 16 GB would take a minute
SAMPLES, SAMPLE_BYTES = 16, 1 << 16  # of larger ones


def prepare_data(recipe: RecipeConfig, text: Sequence[Path], tick: Tick = silent) -> RecipeConfig:
    """Return the recipe with ``data.path`` set to a folder of tokens, absolute; text is prepared into the cache once.

    Args:
        recipe: its ``data.path`` wins if it is set; otherwise ``text`` is used, or ``data.text``, or the default text.
        text: files or folders of the user's text.
        tick: called with the progress so far.
    """
    data = recipe.data
    if data.path:
        if text:
            raise UsageError("both text and data.path are given: drop one of them")
        known = data.text if any(data.identity().values()) else ()  # else it says nothing about these tokens
        return _stored(recipe, data.path, known)
    from golfcore.data.cache import cached_prepare
    from golfcore.data.default_text import default_text

    paths = list(text) or [Path(path) for path in data.text]
    if not paths or paths == [default_text_path()]:
        paths = [default_text(tick)]
    folder = cached_prepare(
        paths, vocab_size=data.vocab_size, val_fraction=data.val_fraction, skip_invalid=data.skip_invalid, tick=tick
    )
    named = tuple(str(path.absolute()).encode("utf-8", "backslashreplace").decode() for path in paths)
    return _stored(recipe, str(folder), named)


def _stored(recipe: RecipeConfig, path: str, text: tuple[str, ...]) -> RecipeConfig:
    """Return the recipe with the paths of its tokens as every working folder and every later stage finds them."""
    tokenizer = stored_path(recipe.data.tokenizer, "data.tokenizer")
    data = replace(recipe.data, path=stored_path(path, "data.path"), tokenizer=tokenizer, text=text)
    return replace(recipe, data=data)


def open_run(recipe: RecipeConfig) -> tuple[RecipeConfig, Tokens]:
    """Open the tokens of a run, and return its recipe with the hashes that identify them.

    Raises:
        InputError: there are no tokens, or others than those whose hashes the recipe holds.
    """
    data = recipe.data
    folder = Path(data.path)
    if not folder.is_dir():
        trained = any(data.identity().values())
        what = f"{folder}, the run's folder of tokens, is gone" if trained else f"{folder}: no such folder"
        raise InputError(f"{what}; {how_to_prepare(folder, data)}")
    tokens = open_tokens(data.path, data.tokenizer)
    found = tokens.identity()
    require_same(found, data.identity(), f"{folder}, the run's folder of tokens,", how_to_prepare(folder, data))
    if tokens.manifest is not None:
        data = replace(data, vocab_size=tokens.vocab_size, val_fraction=tokens.manifest.val_fraction)
    return replace(recipe, data=data.with_identity(found)), tokens


def require_same(found: Mapping[str, str], expected: Mapping[str, str], where: str, then: str) -> None:
    """Raise InputError unless all hashes of data that both sides know are equal.

    Args:
        found: hashes by the names of ``golfcore.config.DATA_HASHES``; an empty or absent one is unknown.
        expected: those of the run's data.
        where: the thing that ``found`` belongs to.
        then: what to do.
    """
    odd = [
        f"{name.removesuffix('_sha256')} {found[name][:12]} instead of {expected[name][:12]}"
        for name in expected
        if found.get(name) and expected[name] and found[name] != expected[name]
    ]
    if odd:
        raise InputError(f"{where} holds other data than this run's: {', '.join(odd)}; {then}")


@dataclass(frozen=True)
class Tokens:
    """The tokens of a run, from a prepared folder or from the contest's shards with a tokenizer given beside them."""

    folder: Path
    vocab_size: int
    tokenizer: Tokenizer | SentencePieceTable
    tokenizer_sha256: str
    manifest: Manifest | None = None  # of a prepared folder
    lock: Lock | None = field(default=None, compare=False)  # keeps ``golfcore data clean`` from the cache's folder

    @property
    def prepared(self) -> bool:
        return self.manifest is not None

    def shards(self, split: str) -> ShardSet:
        from golfcore.data.shards import ShardSet

        return ShardSet.of_split(self.folder, split)

    def identity(self) -> dict[str, str]:
        """Return the hashes of text (empty if there is none beside the tokens), tokenizer and tokens."""
        text = "" if self.manifest is None else self.manifest.source_sha256
        return {
            "text_sha256": text, "tokenizer_sha256": self.tokenizer_sha256, "tokens_sha256": self.fingerprint(),
        }  # fmt: skip

    def fingerprint(self) -> str:
        """Return a hash that is equal for the same tokens: of tokenizer, names of shards, sizes and bytes.

        Of shards above 64 MiB it reads 16 samples.
        """
        digest = hashlib.sha256(self.tokenizer_sha256.encode())
        for path in (*self.shards("train").files, *self.shards("val").files):
            size = path.stat().st_size
            digest.update(f"{path.name} {size}".encode())
            if size <= HASHED_BYTES:
                digest.update(sha256_file(path).encode())
                continue
            with path.open("rb") as f:
                for number in range(SAMPLES):
                    f.seek(number * (size - SAMPLE_BYTES) // (SAMPLES - 1))
                    digest.update(f.read(SAMPLE_BYTES))
        return digest.hexdigest()

    def lines(self) -> list[str]:
        """Return lines for the log of a run: what identifies its data, and what was read of the text."""
        found = " ".join(f"{name}:{value[:16] or '-'}" for name, value in self.identity().items())
        lines = [f"data: {self.folder} {found}"]
        if self.manifest is not None and self.manifest.reading is not None:
            lines.append(f"text: {self.manifest.reading.line()}; {self.manifest.duplicates:,} doubles dropped")
        return lines

    def count_bytes(self, ids: NDArray[np.uint16]) -> NDArray[np.int32]:
        """Return the bytes of text of each of ``ids[1:]``, given the id before it."""
        from golfcore.tokenizer import Tokenizer

        if isinstance(self.tokenizer, Tokenizer):
            return self.tokenizer.token_bytes[ids[1:]]
        return self.tokenizer.count_bytes(ids)


def open_tokens(data: str, tokenizer: str = "", vocab_size: int = 0) -> Tokens:
    """Open a folder of tokens.

    Args:
        data: a prepared folder, or one of contest shards.
        tokenizer: a SentencePiece ``.model`` or a ``.bpe`` file, for contest shards.
        vocab_size: vocabulary that contest shards must have; 0 for any.

    Raises:
        InputError: the folder has no tokens, or there is no tokenizer for them.
    """
    from golfcore.data.manifest import MANIFEST
    from golfcore.data.prepare import load_prepared
    from golfcore.disk import Lock
    from golfcore.tokenizer import SentencePieceTable, Tokenizer

    folder = user_path(data, "data.path")
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; {how_to_prepare(folder)}")
    lock = Lock(folder, "share") if in_cache(folder) else None
    if (folder / MANIFEST).is_file():
        prepared = load_prepared(folder)
        own = prepared.tokenizer()
        if own.vocab_size != prepared.manifest.vocab_size:
            said = prepared.manifest.vocab_size
            raise FormatError(f"{folder}: a tokenizer of {own.vocab_size} tokens, the manifest says {said}")
        return Tokens(folder, own.vocab_size, own, own.sha256, prepared.manifest, lock)
    if not tokenizer:
        raise InputError(f"{folder} has no manifest, so it needs a tokenizer: set data.tokenizer (TOKENIZER_PATH)")
    path = user_path(tokenizer, "data.tokenizer")
    loaded = SentencePieceTable.load(path) if path.suffix == ".model" else Tokenizer.load(path)
    if vocab_size and loaded.vocab_size != vocab_size:
        raise InputError(f"{path} has {loaded.vocab_size} ids, data.vocab_size (VOCAB_SIZE) says {vocab_size}")
    return Tokens(folder, loaded.vocab_size, loaded, sha256_file(path), None, lock)
