"""Load a packed model whose matrices stay in a few bits per weight, for generating text.

A product with one row reads every weight once, so its time is that of the bytes read: the fewer, the faster. Nothing
here decides a score, so an artifact does not carry this code.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from golfcore.artifact.model_io import LoadedModel, build_model, read_model
from golfcore.artifact.weights import COLUMNS, LEFT, RIGHT, SCALE, restore, symbols
from golfcore.container.tensors import Array
from golfcore.ops.bitpack import PackedWeight

WIDEST = 127  # codes that int8 holds


def load_packed(path: Path) -> LoadedModel:
    """Load an artifact like ``model_io.load_model``, and let the module multiply by packed matrices where it can.

    Raises:
        FormatError: as ``model_io.load_model``.
    """
    manifest, arrays, bits = read_model(path)
    loaded = build_model(path, manifest, arrays, bits)
    found = {name: packed_weight(name, arrays, bits) for name in arrays if bits[name] != (0, 0)}
    loaded.module.pack_weights({name: weight for name, weight in found.items() if weight is not None})
    return loaded


def packed_weight(name: str, arrays: Mapping[str, Array], bits: Mapping[str, tuple[int, int]]) -> PackedWeight | None:
    """Return a matrix of symbols as it is multiplied packed; None if it has other values, or codes beyond int8.

    The arguments are those of ``weights.restore``, which has already found that the tensors fit each other.
    """
    scale = arrays.get(name + SCALE)
    stored, (width, trellis) = arrays[name], bits[name]
    if scale is None or stored.ndim != 2 or not stored.size:
        return None
    # The points of a trellis are half steps apart, and their codes are counted in half steps.
    halves = 2 if trellis else 1
    codes = symbols(stored, width, trellis) * halves
    if np.abs(codes).max() > WIDEST:
        return None
    scales_OG = torch.from_numpy(scale.astype(np.float32).reshape(len(stored), -1) / halves)
    column_I = arrays.get(name + COLUMNS)
    low_rank = None
    if name + LEFT in arrays:
        low_rank = (
            torch.from_numpy(restore(name + LEFT, arrays, bits)), torch.from_numpy(restore(name + RIGHT, arrays, bits))
        )  # fmt: skip
    return PackedWeight.from_codes(
        torch.from_numpy(codes.astype(np.int8)), scales_OG,
        None if column_I is None else torch.from_numpy(column_I.astype(np.float32)), low_rank,
    )  # fmt: skip
