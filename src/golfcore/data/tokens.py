"""Open the tokens of a run: text prepared into the cache, a prepared folder, or the contest's shards."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from golfcore.config import RecipeConfig
from golfcore.errors import InputError, UsageError
from golfcore.paths import sha256_file
from golfcore.progress import Tick, silent

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from golfcore.data.shards import ShardSet
    from golfcore.tokenizer import SentencePieceTable, Tokenizer


FINGERPRINT_BYTES = 1 << 16  # each sample of a shard; hashing the contest's 16 GB would take a minute


def prepare_data(recipe: RecipeConfig, text: Sequence[Path], tick: Tick = silent) -> RecipeConfig:
    """Return the recipe with ``data.path`` set to a folder of tokens; text is prepared into the cache once.

    Args:
        recipe: its ``data.path`` wins if it is set; otherwise ``text`` is used, or the default text.
        text: files or folders of the user's text.
        tick: called with the progress so far.
    """
    if recipe.data.path:
        if text:
            raise UsageError("both text and data.path are given: drop one of them")
        return recipe
    from golfcore.data.default_text import default_text
    from golfcore.data.prepare import cached_prepare

    paths = list(text) or [default_text()]
    folder = cached_prepare(paths, vocab_size=recipe.data.vocab_size, val_fraction=recipe.data.val_fraction, tick=tick)
    return dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, path=str(folder)))


@dataclass(frozen=True)
class Tokens:
    """The tokens of a run, from a prepared folder or from the contest's shards with a tokenizer given beside them."""

    folder: Path
    vocab_size: int
    tokenizer: Tokenizer | SentencePieceTable
    tokenizer_sha256: str
    prepared: bool

    def shards(self, split: str) -> ShardSet:
        from golfcore.data.shards import ShardSet

        return ShardSet.of_split(self.folder, split)

    def fingerprint(self) -> str:
        """Return a hash that is equal for the same tokens: of tokenizer, shard names, sizes and samples."""
        digest = hashlib.sha256(self.tokenizer_sha256.encode())
        for path in (*self.shards("train").files, *self.shards("val").files):
            size = path.stat().st_size
            digest.update(f"{path.name} {size}".encode())
            with path.open("rb") as f:
                for place in (0, size // 2, max(0, size - FINGERPRINT_BYTES)):
                    f.seek(place)
                    digest.update(f.read(FINGERPRINT_BYTES))
        return digest.hexdigest()

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
    from golfcore.data.variants import how_to_make
    from golfcore.tokenizer import SentencePieceTable, Tokenizer

    folder = Path(data)
    if (folder / MANIFEST).is_file():
        prepared = load_prepared(folder)
        own = prepared.tokenizer()
        return Tokens(folder, own.vocab_size, own, own.sha256, prepared=True)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; {how_to_make(folder)}")
    if not tokenizer:
        raise InputError(f"{folder} has no manifest, so it needs a tokenizer: set data.tokenizer (TOKENIZER_PATH)")
    path = Path(tokenizer)
    loaded = SentencePieceTable.load(path) if path.suffix == ".model" else Tokenizer.load(path)
    if vocab_size and loaded.vocab_size != vocab_size:
        raise InputError(f"{path} has {loaded.vocab_size} ids, data.vocab_size (VOCAB_SIZE) says {vocab_size}")
    return Tokens(folder, loaded.vocab_size, loaded, sha256_file(path), prepared=False)
