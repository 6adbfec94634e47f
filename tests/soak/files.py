"""What the files of a soak hold: that none is torn, and the numbers in them that a disturbance must not change."""

from __future__ import annotations

import hashlib
import html.parser
import json
import sqlite3
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from golfcore.artifact import folder as unpacked
from golfcore.artifact.model_io import StoredTensor
from golfcore.container import Container
from golfcore.data.manifest import Manifest
from golfcore.data.prepare import load_prepared
from golfcore.data.val_text import read_val_text
from golfcore.pipeline.config import read_config
from golfcore.pipeline.pack import read_quantized
from golfcore.tokenizer import Tokenizer
from golfcore.training.checkpoint import load_checkpoint
from golfcore.training.runlog import read_ledger, read_metrics

# Of a run or an evaluation: all else in score.json is time, place and machine.
SCORES = (
    "val_bpb",
    "val_loss",
    "tokens",
    "bytes",
    "context",
    "stride",
    "artifact_sha256",
    "artifact_bytes",
    "code_matches",
)


def is_temporary(path: Path) -> bool:
    """Whether a name is one that a file or folder has until it is complete."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def torn(folder: Path) -> Iterator[str]:
    """One line for each file under its final name that cannot be read, or that this module does not know."""
    for path in sorted(folder.rglob("*")):
        parents = path.relative_to(folder).parents
        if path.is_dir() or any(map(is_temporary, (path, *parents))) or {"tmp", "home"} & {p.name for p in parents}:
            continue  # the last two are other programs' too
        reader = _reader(path)
        if reader is None:
            yield f"{path}: a file of an unknown kind"
            continue
        try:
            reader(path)
        except Exception as error:  # whatever says that it is torn
            yield f"{path}: {type(error).__name__}: {error}"


def numbers(path: Path, folder: Path) -> Any:
    """What is the same in every undisturbed run: of a file, or of each file below a folder, by name.

    Paths below ``folder`` are as if it lay at the root.
    """
    if path.is_dir():
        inside = (p for p in sorted(path.rglob("*")) if p.is_file() and not is_temporary(p))
        found = {str(p.relative_to(path)): numbers(p, folder) for p in inside}
        return {name: value for name, value in found.items() if value is not None}
    reader = _reader(path)
    value = reader(path) if reader else None
    text = json.dumps(value, default=str, sort_keys=True)
    return None if value is None else json.loads(text.replace(str(folder), ""))


Reader = Callable[[Path], Any]


def _reader(path: Path) -> Reader | None:
    """The reader of a file by its name: raises if it is torn, and returns the numbers in it, None if there are none."""
    if path.parent.name in ("locks", "output") or path.name in (".owner", "sweep.lock"):
        return lambda path: None  # written in place: the operating system's lock counts, not the text
    return BY_NAME.get(path.name) or BY_SUFFIX.get(path.suffix)


def _container(path: Path) -> object:
    with Container.open(path) as file:
        file.verify()
    return _sha256(path)


def _checkpoint(path: Path) -> object:
    saved = load_checkpoint(path)
    return (
        {"final": saved["final"], "step": saved["step"], "weights": _tensors(saved["weights"])}
        if saved["final"]
        else None
    )


def _tensors(named: dict[str, torch.Tensor]) -> dict[str, str]:
    return {
        name: _bytes_sha256(tensor.contiguous().view(torch.uint8).numpy().tobytes()) for name, tensor in named.items()
    }


def _quantized(path: Path) -> object:
    def plain(value: object) -> object:
        if isinstance(value, StoredTensor):
            return [plain(part) for part in astuple(value)]
        if isinstance(value, torch.Tensor):
            return _bytes_sha256(value.contiguous().numpy().tobytes())
        return [plain(part) for part in value] if isinstance(value, (list, tuple)) else value

    return [plain(item) for item in read_quantized(path)[0]]


def _prepared(path: Path) -> object:
    load_prepared(path.parent)
    return Manifest.load(path.parent).as_tree()


def _manifest(path: Path) -> object:
    tree = json.loads(path.read_bytes())
    if "golfcore_unpacked" not in tree:
        return _prepared(path)
    unpacked.load(path.parent)
    return tree


def _metrics(path: Path) -> object:
    """The losses; a torn last line is what a kill may leave, and the next run drops it."""
    keys = ("kind", "step", "train_loss", "val_loss", "val_bpb", "tokens", "lr_mult")
    return [{key: row[key] for key in keys if key in row} for row in read_metrics(path)]


def _score(path: Path) -> object:
    score = json.loads(path.read_bytes())
    return {key: score[key] for key in SCORES}


def _ledger(path: Path) -> object:
    return [{"phase": row["phase"], "complete": row["complete"]} for row in read_ledger(path)]


def _config(path: Path) -> object:
    read_config(path.parent)
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _page(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    html.parser.HTMLParser().feed(text)
    if not text.rstrip().endswith("</html>"):
        raise ValueError("the page has no end")


def _journal(path: Path) -> object:
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
        [(verdict,)] = db.execute("PRAGMA integrity_check").fetchall()
        rows = db.execute("SELECT name, state, result FROM jobs ORDER BY id").fetchall()
    db.close()
    if verdict != "ok":
        raise ValueError(verdict)
    kept = ("val_bpb", "val_loss", "bytes_total")
    results = [(name, state, json.loads(result) if result else {}) for name, state, result in rows]
    return [[name, state, {key: result.get(key) for key in kept}] for name, state, result in results]


def _safetensors(path: Path) -> object:
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    return _tensors(tensors)


def _log(path: Path) -> None:
    path.read_text(encoding="utf-8")


def _json(path: Path) -> None:
    json.loads(path.read_bytes())


def _json_numbers(path: Path) -> object:
    return json.loads(path.read_bytes())


def _text(path: Path) -> object:
    return path.read_text(encoding="utf-8")


def _sha256(path: Path) -> str:
    return _bytes_sha256(path.read_bytes())


def _bytes_sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _shard(path: Path) -> object:
    from golfcore.data.shards import map_shard

    return _bytes_sha256(map_shard(path).tobytes())


def _hashes(path: Path) -> object:
    data = path.read_bytes()
    if len(data) % 8:
        raise ValueError(f"{len(data)} bytes of hashes of 8 bytes")
    return _bytes_sha256(data)


BY_NAME: dict[str, Reader] = {
    "submission.json": _json, "README.md": _log, "requirements.txt": _text, "train_gpt.py": _text,
    "train_seed1337.log": _log,
    "config.toml": _config, "recipe.toml": _text, "log.txt": _log, "metrics.jsonl": _metrics, "ledger.json": _ledger,
    "env.json": _json, "quantised.json": _json_numbers, "quantised.pt": _quantized, "score.json": _score,
    "stopped.json": _json, "manifest.json": _manifest, "val_text.zst": lambda path: len(read_val_text(path)),
    "sweep.db": _journal, "products.json": _json, "checkpoint.previous.pt": lambda path: load_checkpoint(path) and None,
}  # fmt: skip
BY_SUFFIX: dict[str, Reader] = {
    ".golf": _container, ".pt": _checkpoint, ".bpe": lambda path: Tokenizer.load(path).sha256, ".bin": _shard,
    ".sha": _hashes, ".html": _page, ".npy": lambda path: _bytes_sha256(np.load(path).tobytes()),
    ".safetensors": _safetensors, ".jsonl": lambda path: [json.loads(line) for line in path.open()] and None,
    ".toml": _text, ".ids": _text, ".csv": _log,
}  # fmt: skip
