"""Say how to prepare tokens that are not there, in a command that can be pasted and gives the same tokens again."""

from __future__ import annotations

import os
from pathlib import Path

from golfcore.config import DataConfig
from golfcore.data.variants import how_to_fetch
from golfcore.hints import command
from golfcore.paths import cache_dir


def prepared_cache() -> Path:
    """Return the folder of the cache that holds prepared texts, each in a folder named by its hash."""
    return cache_dir() / "prepared"


def default_text_path() -> Path:
    """Return the place of the default text in the cache, be it there or not."""
    return (cache_dir() / "text" / "news.jsonl").absolute()


def in_cache(folder: Path) -> bool:
    """Return whether a folder is, or would be, one of the cache's prepared texts."""
    own = os.path.realpath(prepared_cache())
    return own in (str(parent) for parent in (Path(os.path.realpath(folder)), *Path(os.path.realpath(folder)).parents))


def how_to_prepare(folder: Path, data: DataConfig | None = None) -> str:
    """Return what to do if ``folder`` holds no tokens, or others than it should.

    A folder in the cache belongs to one text, so the command for it names that text and no folder: ``golfcore data
    prepare`` finds the place by itself, and never fills the place of one text with another. A text that is not known
    is called YOUR_TEXT, so that the command never takes the default text for it. A folder that is named as one of the
    contest is downloaded.

    Args:
        folder: the folder of tokens.
        data: the keys of the run that was trained on it; default: unknown.
    """
    if fetch := how_to_fetch(folder):
        return fetch
    options: list[str | Path] = []
    if data is None or not data.text:
        options += ["--text", "YOUR_TEXT"]
    elif data.text != (str(default_text_path()),):
        options += ["--text", *map(Path, data.text)]
    if data is not None:
        options += ["--vocab-size", str(data.vocab_size), "--val-fraction", repr(data.val_fraction)]
        options += ["--skip-invalid"] if data.skip_invalid else []
    if in_cache(folder):
        return f"make it with: {command('data', 'prepare', *options)}"
    first = "move it away, then " if folder.is_dir() and any(folder.iterdir()) else ""
    return f"{first}make it with: {command('data', 'prepare', *options, '-o', folder)}"
