"""Entries for tests: a folder with a script, logs, submission.json and README that agree with each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LOG = """Hyperparameters:
  max_wallclock_seconds: 600.0
  seed: {seed}
  train_files: ./data/datasets/fineweb10B_sp1024/fineweb_train_*.bin
  vocab_size: 1024
  world_size: 8
{settings}train_shards: 80
val_tokens: {val_tokens}
step:1000/20000 train_loss:2.6{seed} train_time:43560ms step_avg:43.56ms
step:5000/20000 train_loss:2.3{seed} train_time:218000ms step_avg:43.60ms
step:10000/20000 train_loss:2.2{seed} train_time:436000ms step_avg:43.60ms
stopping_early: wallclock_cap train_time:{train_ms}ms step:13700/20000
{after}Code size: 40000 bytes
Serialized model int6+lzma: {model} bytes
Total submission size int6+lzma: {total} bytes
final_int6_roundtrip_exact val_loss:{loss:.8f} val_bpb:{bpb:.8f}
final_int6_roundtrip val_loss:{loss:.4f} val_bpb:{bpb:.4f} eval_time:{eval_ms}ms
"""
RATIO = 2.436 * 0.6931471805599453


def log(seed: int = 42, bpb: float = 1.2, **changes: Any) -> str:
    """A log; keywords are fields of ``LOG``."""
    model = changes.pop("model", 15_800_000)
    values = {
        "seed": seed, "bpb": bpb, "loss": bpb * RATIO, "settings": "", "val_tokens": 62_021_632, "train_ms": 599_900,
        "after": "", "model": model, "total": model + 40_000, "eval_ms": 75_000,
    }  # fmt: skip
    return LOG.format(**(values | changes))


def write_entry(folder: Path, files: dict[str, str] | None = None, **claims: Any) -> Path:
    """Write an entry; ``files`` add to the usual ones or replace them, and None removes one."""
    folder = folder / "track_10min_16mb" / "2026-04-30_Entry"
    folder.mkdir(parents=True)
    scores = {42: 1.2001, 314: 1.2004, 1337: 1.1998}
    submission = {
        "name": "Entry", "author": "someone", "date": "2026-04-30", "track": "track_10min_16mb", "val_bpb": 1.2001,
        "val_loss": 1.2001 * RATIO, "bytes_total": 15_840_000, "bytes_code": 40_000, "seeds": list(scores),
        "seed_results": {str(seed): {"val_bpb": bpb} for seed, bpb in scores.items()},
    }  # fmt: skip
    usual = {
        "train_gpt.py": "import torch\nprint(torch.__version__)\n" + "#" * 39_950 + "\n",
        "submission.json": json.dumps({k: v for k, v in (submission | claims).items() if v is not None}, indent=1),
        "README.md": "# Entry\n\n| seed | val_bpb |\n| --- | --- |\n"
        + "".join(f"| {seed} | {bpb} |\n" for seed, bpb in scores.items()),
        "requirements.txt": "torch\nnumpy\n",
        **{f"train_seed{seed}.log": log(seed, bpb) for seed, bpb in scores.items()},
    }
    for name, text in (usual | (files or {})).items():
        if text is not None:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return folder


def severe(report: Any) -> set[tuple[str, str]]:
    """Rules with findings that are BLOCK or LIKELY."""
    return {(f.rule, f.severity) for f in report.findings if f.severity in ("BLOCK", "LIKELY")}
