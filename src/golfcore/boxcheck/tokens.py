"""Check the hashes of a recipe's tokens, and the room on the disk for what a run of it writes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from golfcore.boxcheck.findings import Failed, Found, NotHere
from golfcore.config import RecipeConfig
from golfcore.data.manifest import MANIFEST
from golfcore.data.shards import map_shard, split_files
from golfcore.data.tokens import open_tokens
from golfcore.data.verify import check_files
from golfcore.disk import check_room, free_bytes
from golfcore.errors import FormatError, InputError
from golfcore.machine import threads
from golfcore.paths import sha256_file
from golfcore.pipeline.requirements import check_place, checkpoints_to_write, existing, files_to_write
from golfcore.ranks.rendezvous import Place

SUMS = "SHA256SUMS"  # what `sha256sum *.bin >SHA256SUMS` writes
SPLITS = ("train", "val", "val_bytes")


def check_tokens(recipe: RecipeConfig, place: Place) -> Found:
    """Check every file of the recipe's tokens, on the first rank of each machine.

    A prepared folder has the hashes in its manifest. The contest publishes none for its shards: they are compared with
    the folder's SHA256SUMS if there is one, and with the shards of the other machines.
    """
    if not recipe.data.path:
        raise NotHere("the recipe names no tokens: its text is prepared when a run begins")
    if place.local_rank:
        return Found("checked by the first rank of this machine")
    folder = Path(recipe.data.path)
    tokens = open_tokens(recipe.data.path, recipe.data.tokenizer, recipe.data.vocab_size)
    if (folder / MANIFEST).is_file():
        return Found(check_files(folder))
    files = [path for split in SPLITS for path in split_files(folder, split)]
    counts = {split: len(tokens.shards(split)) for split in SPLITS[:2]}
    for path in files:
        map_shard(path)  # raises if its header and its size disagree
    with ThreadPoolExecutor(threads()) as pool:
        hashes = dict(zip((path.name for path in files), pool.map(sha256_file, files), strict=True))
    everything = hashlib.sha256("".join(f"{hashes[name]} {name}\n" for name in sorted(hashes)).encode()).hexdigest()
    text = (
        f"{len(files)} shards, {counts['train']:,} training and {counts['val']:,} validation tokens, all together "
        f"{everything[:16]}"
    )
    values = {"hash": float(int(everything[:12], 16))}
    if not (folder / SUMS).is_file():
        return Found(text, values, f"their origin, as {folder} has no {SUMS} to compare with")
    return Found(f"{text}; {_compared(folder, hashes)} agree with {SUMS}", values)


def compare_tokens(found: Sequence[Found]) -> None:
    """Raise Failed unless all machines have the same shards."""
    hashes = {one.values["hash"] for one in found if "hash" in one.values}
    if len(hashes) > 1:
        raise Failed("the machines have different shards", "fetch them again: golfcore data get fineweb")


def _compared(folder: Path, hashes: dict[str, str]) -> int:
    """Compare hashes with the folder's list, and return how many it has."""
    known: dict[str, str] = {}
    for line in (folder / SUMS).read_text(encoding="utf-8", errors="replace").splitlines():
        digest, _, name = line.partition(" ")
        known[Path(name.strip().lstrip("*")).name] = digest.lower()
    for name, digest in hashes.items():
        if name not in known:
            raise FormatError(f"{folder / SUMS}: no line for {name}; make the list anew where the shards are known")
        if known[name] != digest:
            raise FormatError(
                f"{folder / name}: sha256 {digest[:16]}..., {SUMS} says {known[name][:16]}...; remove the file and "
                "fetch it again: golfcore data get fineweb"
            )
    return len(hashes)


def check_disk(recipe: RecipeConfig, runs: Path) -> Found:
    """Check that the folder of runs can be written and has room for checkpoints, quantized weights and packed file."""
    check_place(runs)
    place, vocab_size = existing(runs), recipe.data.vocab_size
    needed = checkpoints_to_write(runs, recipe, vocab_size) + files_to_write(runs, recipe, vocab_size)
    check_room(place, needed)
    free = free_bytes(place)
    if free is None:
        return Found(f"{runs} can be written; a run takes {needed / 1e6:,.0f} MB", missing="the room, which it hides")
    return Found(f"{runs}: {free / 1e9:,.1f} GB free, a run takes {needed / 1e6:,.0f} MB", {"free_bytes": float(free)})


def vocab_of(recipe: RecipeConfig) -> int:
    """Return the vocabulary of the recipe's tokens; if they are not at hand, the one that the recipe expects."""
    try:
        return (
            open_tokens(recipe.data.path, recipe.data.tokenizer).vocab_size
            if recipe.data.path
            else (recipe.data.vocab_size)
        )
    except (FormatError, InputError):
        return recipe.data.vocab_size
