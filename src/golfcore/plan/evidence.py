"""Load the step times of contest entries, on which the time model is fitted and tested.

``contest_steps.csv`` is taken from the logs of merged entries of openai/parameter-golf (MIT licence, as of 2026-05-02)
by ``bench/contest_steps.py``: shape, batch, milliseconds per step, peak memory; no text of the logs.
"""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

Attention = Literal["sdpa", "fa3"]  # PyTorch's kernel, or FlashAttention-3
EVIDENCE = Path(__file__).parent / "contest_steps.csv"
COLUMNS = (
    "entry", "log", "gpus", "layers", "passes", "max_passes", "model_dim", "kv_dim", "mlp_hidden", "vocab", "seq_len",
    "batch_tokens", "attention", "params", "steps", "ms_per_step", "peak_mib", "excluded",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class LoggedRun:
    """The facts of one log of a contest entry.

    ``passes`` is the number of layers that a step ran, as a mean over the run, ``max_passes`` the largest number.
    ``excluded`` says why the log is not used, and is empty if it is.
    """

    entry: str
    log: str
    gpus: int
    layers: int
    passes: float
    max_passes: int
    model_dim: int
    kv_dim: int
    mlp_hidden: int
    vocab: int
    seq_len: int
    batch_tokens: int
    attention: Attention
    params: int
    ms_per_step: float
    peak_mib: int | None
    excluded: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Return all that the time of a step depends on, but for kernels and repeated layers."""
        return (self.layers, self.model_dim, self.mlp_hidden, self.vocab, self.seq_len, self.batch_tokens, self.gpus)

    @property
    def held_out(self) -> bool:
        """Return whether the entry is kept out of the fit, by the hash of its name, so that its seeds stay together."""
        return held_out(self.entry)


def held_out(entry: str) -> bool:
    """Return the lowest bit of the SHA-256 of an entry's folder name: a split fixed before anything was fitted."""
    return bool(hashlib.sha256(entry.encode()).digest()[-1] & 1)


@cache
def logged_runs() -> tuple[LoggedRun, ...]:
    """Load every row of the table, excluded ones too."""
    with EVIDENCE.open(newline="", encoding="utf-8") as f:
        return tuple(
            LoggedRun(
                entry=row["entry"], log=row["log"], gpus=int(row["gpus"]), layers=int(row["layers"]),
                passes=float(row["passes"]), max_passes=int(row["max_passes"]),
                model_dim=int(row["model_dim"]), kv_dim=int(row["kv_dim"]),
                mlp_hidden=int(row["mlp_hidden"]), vocab=int(row["vocab"]), seq_len=int(row["seq_len"]),
                batch_tokens=int(row["batch_tokens"]),
                attention="fa3" if row["attention"] == "fa3" else "sdpa", params=int(row["params"]),
                ms_per_step=float(row["ms_per_step"]), peak_mib=int(row["peak_mib"]) if row["peak_mib"] else None,
                excluded=row["excluded"],
            )
            for row in csv.DictReader(f)
        )  # fmt: skip
