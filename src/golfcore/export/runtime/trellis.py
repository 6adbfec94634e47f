"""Stand in for ``golfcore.container.trellis``: the points of trellis-coded symbols in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from golfcore.container.plain_decoder import CODES


def points(symbols: npt.NDArray[np.int8], bits: int) -> npt.NDArray[Any]:
    """Return the points of symbols that were coded with ``bits`` bits of state, in the same shape."""
    h0, h1 = CODES[bits]
    masks = np.array([0, h0 >> 1, h1 >> 1, (h0 ^ h1) >> 1])
    flat = symbols.reshape(-1, symbols.shape[-1] if symbols.ndim > 1 else 1).astype(np.int16)
    state_C, out = np.zeros(flat.shape[1], np.int64), np.empty_like(flat)
    for row, symbols_C in enumerate(flat):
        out[row] = 2 * symbols_C + (state_C & 1)
        state_C = (state_C >> 1) ^ masks[out[row] & 3]
    return out.reshape(symbols.shape)
