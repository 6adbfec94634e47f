"""Download the contest's FineWeb shards through ``huggingface_hub`` (the ``hub`` extra).

The dataset's manifest comes first and says how many shards there are. Each file is downloaded into a staging folder,
checked, and only then moved to its final name, so that a broken download is never taken for data. A file that is
already there and has the right size is kept, so that an interrupted download goes on where it stopped.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from golfcore.data.shards import read_header, shard_name
from golfcore.data.variants import VARIANTS, Variant
from golfcore.errors import FormatError, GolfError, InputError, UsageError
from golfcore.paths import write_failure
from golfcore.progress import Tick, silent
from golfcore.ranges import Range
from golfcore.suggest import nearest

DEFAULT_SHARDS = 80
_REMOTE_ROOT = "datasets"
_STAGING = ".download"
_MAX_SHARDS = 10_000
_MAX_MANIFEST_BYTES = 16 << 20


FileCheck = Callable[[Path], object]
"""Raises a GolfError if the file breaks its format."""


def fetch_fineweb(variant: str, root: Path, *, shards: int = DEFAULT_SHARDS, tick: Tick = silent) -> Path:
    """Fetch all validation shards, the first ``shards`` training shards (200 MB each) and the tokenizer of a variant.

    The files go to ``root/datasets/fineweb10B_<variant>/``, ``root/tokenizers/`` and ``root/manifest.json``, as the
    contest's own script puts them.

    Returns:
        The folder of shards.

    Raises:
        UsageError: an unknown variant, or more shards than there are.
        InputError: ``huggingface_hub`` is not installed, or a file cannot be fetched.
        FormatError: a downloaded file breaks its format.
    """
    if variant not in VARIANTS:
        raise UsageError(f"variant {variant!r}: expected one of {', '.join(VARIANTS)}{nearest(variant, VARIANTS)}")
    if not 0 <= shards <= _MAX_SHARDS:
        raise UsageError(f"--shards {shards}: expected 0 to {_MAX_SHARDS}")
    where = VARIANTS[variant]
    hub = _Hub(where.repo, root)
    # Always fetched anew: it is small, and a later call may ask for shards that were added since.
    hub.fetch("manifest.json", root / "manifest.json", _check_manifest, keep=False)
    plan = _plan(_check_manifest(root / "manifest.json"), where, shards)
    for done, (remote, check) in enumerate(plan):
        tick(done, len(plan), PurePosixPath(remote).name)
        hub.fetch(remote, root / remote, check)
    tick(len(plan), len(plan), "")
    shutil.rmtree(root / _STAGING, ignore_errors=True)
    return root / "datasets" / where.dataset


def _plan(manifest: dict[str, Any], variant: Variant, shards: int) -> list[tuple[str, FileCheck]]:
    """Return each remote path below the dataset's root, which is also the local one, and a function that checks it."""
    entry = _named(manifest, "datasets", variant.dataset)
    train, val = _count(entry, "files_train"), _count(entry, "files_val")
    if shards > train:
        raise UsageError(f"--shards {shards}: {variant.dataset} has {train} training shards")
    names = [shard_name("val", i) for i in range(val)]
    if variant.byte_counts:
        names += [shard_name("val_bytes", i) for i in range(val)]
    names += [shard_name("train", i) for i in range(shards)]
    tokenizer = _named(manifest, "tokenizers", str(entry.get("tokenizer_name")))
    files = [str(tokenizer[key]) for key in ("model_path", "vocab_path", "path") if tokenizer.get(key)]
    if not files:
        raise FormatError(f"manifest.json: tokenizer {tokenizer.get('name')!r} names no file")
    for file in files:
        parts = PurePosixPath(file).parts
        if parts[:1] != ("tokenizers",) or ".." in parts or "\\" in file or len(parts) < 2:
            raise FormatError(f"manifest.json: tokenizer path {file!r}, expected a path below tokenizers/")
    return [(file, _check_filled) for file in files] + [(f"datasets/{variant.dataset}/{n}", read_header) for n in names]


def _named(manifest: dict[str, Any], section: str, name: str) -> dict[str, Any]:
    rows = manifest.get(section)
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, dict) and row.get("name") == name:
            return row
    raise FormatError(f"manifest.json: no entry named {name!r} under {section}")


def _count(entry: dict[str, Any], key: str) -> int:
    stats = entry.get("stats")
    count: Any = stats.get(key) if isinstance(stats, dict) else None
    Range(1, _MAX_SHARDS).check(f"manifest.json: stats.{key}", count, FormatError)
    return int(count)


def _check_manifest(path: Path) -> dict[str, Any]:
    with path.open("rb") as f:
        raw = f.read(_MAX_MANIFEST_BYTES + 1)
    try:
        tree = json.loads(raw[:_MAX_MANIFEST_BYTES])
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: not JSON ({error})") from error
    if not isinstance(tree, dict):
        raise FormatError(f"{path}: expected a JSON object")
    return tree


def _check_filled(path: Path) -> None:
    if not path.is_file() or path.stat().st_size == 0:
        raise FormatError(f"{path}: an empty file")


class _Hub:
    """One dataset repository, and the staging folder into which its files are downloaded first."""

    def __init__(self, repo: str, root: Path) -> None:
        try:
            from huggingface_hub import hf_hub_download
        except ImportError as error:
            raise InputError(
                "downloading needs huggingface_hub, which is not installed; run: pip install 'golfcore[hub]'"
            ) from error
        self._download, self._repo, self._staging = hf_hub_download, repo, root / _STAGING

    def fetch(self, remote: str, target: Path, check: FileCheck, *, keep: bool = True) -> None:
        """Download ``remote`` (below the dataset's root) to ``target``; with ``keep`` a good file there is kept."""
        if keep and _is_good(target, check):
            return
        name = f"{_REMOTE_ROOT}/{remote}"
        try:
            staged = Path(
                self._download(repo_id=self._repo, filename=name, repo_type="dataset", local_dir=self._staging)
            )
        except Exception as error:  # the hub's own errors, its HTTP client's and the system's have no common base
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise InputError(
                f"cannot fetch {name} of {self._repo}: {reason[0]}; run the same command again to go on from here"
            ) from error
        try:
            check(staged)
        except GolfError:
            staged.unlink(missing_ok=True)  # else the next call would find it and not download it again
            raise
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            staged.replace(target)
        except OSError as error:
            raise InputError(write_failure(target, error)) from error


def _is_good(path: Path, check: FileCheck) -> bool:
    try:
        check(path)
    except GolfError:
        return False
    return True
