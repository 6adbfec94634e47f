"""Prepare text in the user's cache, where each text has a folder that proves what it was made from."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from golfcore import __version__
from golfcore.data.hints import prepared_cache
from golfcore.data.manifest import FORMAT, Manifest
from golfcore.data.prepare import load_prepared, prepare
from golfcore.data.text_files import PACKED, find_texts, kind_of
from golfcore.errors import GolfError, InputError
from golfcore.paths import sha256_file
from golfcore.progress import Tick, silent

_LOG = logging.getLogger(__name__)


def cached_prepare(
    paths: Sequence[Path],
    *,
    vocab_size: int = 1024,
    val_fraction: float = 0.07,
    skip_invalid: bool = False,
    threads: int = 0,
    tick: Tick = silent,
) -> Path:
    """Prepare text in the user's cache, in a folder named by the hash of text and settings; later calls find it.

    A folder that is there is used only if its manifest says that it was made for this hash and its files are those of
    the manifest; otherwise it is made again.

    Raises:
        UsageError, InputError: as for ``prepare``.
    """
    settings = f"{FORMAT} {__version__} {vocab_size} {float(val_fraction)!r} {skip_invalid}"
    key = _key(settings, paths)
    folder = prepared_cache() / key[:16]
    if (found := _made_for(folder, key, val_fraction)) is not None:
        _tell(paths, found)
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    try:
        prepare(
            paths, folder, vocab_size=vocab_size, val_fraction=val_fraction, skip_invalid=skip_invalid, threads=threads,
            cache_key=key, tick=tick,
        )  # fmt: skip
    except InputError:
        if _made_for(folder, key, val_fraction) is None:  # else another process made it meanwhile
            raise
    if _key(settings, paths) != key:
        shutil.rmtree(folder, ignore_errors=True)
        raise InputError(f"{paths[0]}: the text changed while it was read; run this again")
    return folder


def _key(settings: str, paths: Sequence[Path]) -> str:
    """Return the hash of the settings and of every byte of the text."""
    key = hashlib.sha256(settings.encode())
    for path in find_texts(paths)[0]:
        packing = path.suffix.lower() if path.suffix.lower() in PACKED else ""
        try:
            key.update(f"\n{kind_of(path)}{packing} {sha256_file(path)}".encode())
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    return key.hexdigest()


def _made_for(folder: Path, key: str, val_fraction: float) -> Manifest | None:
    """Return the manifest of a whole folder that was made for this key, or None."""
    try:
        prepared = load_prepared(folder)
        vocab_size = prepared.tokenizer().vocab_size
    except GolfError:
        return None
    manifest = prepared.manifest
    found = (manifest.cache_key, manifest.vocab_size, manifest.val_fraction)
    return manifest if found == (key, vocab_size, float(val_fraction)) else None


def _tell(paths: Sequence[Path], manifest: Manifest) -> None:
    """Report the counts of a text that was prepared earlier, and what is left out of its folders now."""
    if manifest.reading is not None:
        left_out = dict(manifest.reading.left_out) | dict(find_texts(paths)[2])
        reading = replace(manifest.reading, left_out=left_out)
        doubles = f"; {manifest.duplicates:,} doubles dropped" if manifest.duplicates else ""
        level = logging.WARNING if left_out or reading.invalid else logging.INFO
        _LOG.log(level, "text: %s%s; prepared before", reading.line(), doubles)
