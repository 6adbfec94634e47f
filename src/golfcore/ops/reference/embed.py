"""Token and hashed-bigram embedding with a smear gate."""

from __future__ import annotations

import torch

from golfcore.ops.reference import widen


def starts(ids: torch.Tensor, bos: int) -> torch.Tensor:
    """Return whether each id of [..., T] starts a document: the first of its row, and every ``bos``."""
    first = torch.zeros_like(ids, dtype=torch.bool)
    first[..., :1] = True
    return first | (ids == bos)


def bigram_slots(ids: torch.Tensor, slots: int, bos: int) -> torch.Tensor:
    """Return the slot of each pair (previous, current) of [..., T]; the last slot of the table starts a document."""
    before = torch.roll(ids, 1, -1)
    mixed = ((36313 * ids) & 0xFFFFFFFF) ^ ((27191 * before) & 0xFFFFFFFF)
    return torch.where(starts(ids, bos), slots - 1, mixed % (slots - 1))


def embed(
    ids: torch.Tensor, table: torch.Tensor, bigram: torch.Tensor | None, bigram_scale: torch.Tensor | None,
    smear_w: torch.Tensor | None, smear_lambda: torch.Tensor | None, bos: int, dtype: torch.dtype,
) -> torch.Tensor:  # fmt: skip
    """See ``golfcore.ops.embed``; fp64 tables give an fp64 result whatever ``dtype``."""
    e = widen(table)[ids]
    if bigram is not None and bigram_scale is not None:
        e = e + bigram_scale * widen(bigram)[bigram_slots(ids, bigram.shape[0], bos)]
    x = e
    if smear_w is not None and smear_lambda is not None:
        gate = smear_lambda * torch.sigmoid((e[..., : smear_w.shape[0]] * smear_w).sum(-1))
        gate = torch.where(starts(ids, bos), 0.0, gate)
        x = e + gate[..., None] * torch.roll(e, 1, -2)
    return x if table.dtype == torch.float64 else x.to(dtype)
