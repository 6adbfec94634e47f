"""Make the calibration rows that Hessians are collected on: training tokens, own text, or generated text."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from golfcore.data.contracts import BOS
from golfcore.data.shards import ShardSet
from golfcore.errors import InputError
from golfcore.model.interface import LanguageModel
from golfcore.progress import Tick, silent

MIN_DOCUMENT = 8  # shorter documents may be equal by chance
MIN_TEXT = 256  # tokens: with fewer a Hessian is little but its damping
RUN = 128  # tokens that two texts do not share by chance, whatever their documents


class TrainingRows:
    """This rank's part of ``tokens`` training tokens, in rows spread evenly over the data, int64 [N, seq_len].

    A row is read when a slice with it is taken.

    Raises:
        InputError: the data is shorter than one row.
    """

    def __init__(self, shards: ShardSet, tokens: int, seq_len: int, *, rank: int = 0, world: int = 1) -> None:
        rows = min(-(-tokens // seq_len), len(shards) // seq_len)
        if rows < 1:
            raise InputError(f"{len(shards)} tokens of calibration text, expected at least one row of {seq_len}")
        self._shards = shards
        self._starts = np.linspace(0, len(shards) - seq_len, rows).astype(np.int64)[rank::world]
        self.shape = (len(self._starts), seq_len)

    def __getitem__(self, where: slice) -> Tensor:
        length = self.shape[1]
        found = [self._shards[int(at) : int(at) + length].astype(np.int64) for at in self._starts[where]]
        return torch.from_numpy(np.stack(found)) if found else torch.empty(0, length, dtype=torch.int64)


def training_rows(shards: ShardSet, tokens: int, seq_len: int, *, rank: int = 0, world: int = 1) -> Tensor:
    """Read all rows of ``TrainingRows`` and return them as one tensor, int64 [N, seq_len]."""
    return TrainingRows(shards, tokens, seq_len, rank=rank, world=world)[:]


def text_rows(ids: NDArray[np.uint16], seq_len: int) -> Tensor:
    """Cut a stream of tokens into rows, int64 [N, <= seq_len]; a rest that fills no row is dropped.

    Raises:
        InputError: fewer than ``MIN_TEXT`` tokens.
    """
    if len(ids) < MIN_TEXT:
        raise InputError(
            f"the calibration text has {len(ids)} tokens, expected at least {MIN_TEXT}; give more text, or leave "
            "--text out for training text"
        )
    length = min(seq_len, len(ids))
    whole = ids[: len(ids) // length * length].astype(np.int64)
    return torch.from_numpy(whole.reshape(-1, length))


def check_disjoint(ids: NDArray[np.uint16], validation: NDArray[np.uint16]) -> None:
    """Raise InputError if calibration and validation text share a document or ``RUN`` tokens in a row."""
    known = {digest for _, digest in _documents(validation)}
    for start, digest in _documents(ids):
        if digest in known:
            raise InputError(
                f"the calibration text overlaps the validation text: its document at token {start} is also a "
                "validation document; the weights would depend on the text that scores them. Use other text"
            )
    shared = np.flatnonzero(np.isin(_run_hashes(ids), _run_hashes(validation)))
    if len(shared):
        raise InputError(
            f"the calibration text overlaps the validation text: its {RUN} tokens from token {shared[0]} on are also "
            "validation text; the weights would depend on the text that scores them. Use other text"
        )


def _run_hashes(ids: NDArray[np.uint16]) -> NDArray[np.uint64]:
    """Return a 64-bit hash of every ``RUN`` tokens in a row: a polynomial modulo 2^64, by doubling."""
    found, width, base = ids.astype(np.uint64) + np.uint64(1), 1, 0x9E3779B97F4A7C15
    while width < RUN:
        found = found[: max(len(found) - width, 0)] * np.uint64(base) + found[width:]
        base, width = base * base % 2**64, 2 * width
    return found


def _documents(ids: NDArray[np.uint16]) -> list[tuple[int, bytes]]:
    """Return where each document starts, and a hash of its tokens."""
    bounds = [0, *np.flatnonzero(ids == BOS).tolist(), len(ids)]
    found = []
    for a, b in pairwise(bounds):
        document = ids[a:b][ids[a:b] != BOS]
        if len(document) >= MIN_DOCUMENT:
            found.append((a, hashlib.sha256(np.ascontiguousarray(document).tobytes()).digest()))
    return found


@torch.no_grad()
def generated_rows(
    module: LanguageModel, tokens: int, seq_len: int, *, seed: int, temperature: float = 0.8, tick: Tick = silent
) -> Tensor:
    """Let the model generate rows of text, int64 [N, seq_len], each after a document mark (entry 2026-03-25).

    Raises:
        InputError: the model's distributions are NaN; the message has the position.
    """
    module.eval()
    device = next(module.parameters()).device
    rows = -(-tokens // seq_len)
    generator = torch.Generator().manual_seed(seed)
    ids_NT = torch.full((rows, 1), BOS, dtype=torch.int64, device=device)
    state, fresh = module.new_state(rows), ids_NT
    for position in range(seq_len - 1):
        logits_NTV, state = module.logits(state, fresh)
        chance_NV = torch.softmax(logits_NTV[:, -1].float().cpu() / temperature, -1)
        if not torch.isfinite(chance_NV).all():
            raise InputError(f"the model's own text ends at token {position}: its distribution is NaN")
        fresh = torch.multinomial(chance_NV, 1, generator=generator).to(device)
        ids_NT = torch.cat((ids_NT, fresh), 1)
        tick(position + 1, seq_len - 1, "writing calibration text")
    return ids_NT.cpu()
