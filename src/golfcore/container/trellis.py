"""Decode trellis-coded symbols to points of a grid of half steps (docs/reference/formats.md, 4).

In a trellis code the value of a symbol depends on a state that the symbols before it in its column have set. The lowest
bit of the state makes symbol k the point ``2k + (state & 1)``; the weight is the point times half the
row's scale. Down a column, ``state = (state >> 1) ^ MASKS[bits][point & 3]``, from 0 in the first row.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from golfcore import _core
from golfcore.machine import threads

# Ungerboeck's one-dimensional codes of 2^bits states, parity checks h0 and h1 in octal.
_CODES = {2: (0o5, 0o2), 3: (0o13, 0o4), 4: (0o23, 0o4), 5: (0o45, 0o10), 6: (0o103, 0o24), 7: (0o235, 0o126),
          8: (0o515, 0o362)}  # fmt: skip
MASKS = {bits: (0, h0 >> 1, h1 >> 1, (h0 ^ h1) >> 1) for bits, (h0, h1) in _CODES.items()}


def points(symbols: npt.NDArray[np.int8], bits: int) -> npt.NDArray[np.int16]:
    """Return the points of symbols that were coded with ``bits`` bits of state, in the same shape.

    The last axis is the column, all others together the row; a vector is one column. The cost is one shift and one
    exclusive or per symbol; each thread takes a run of columns.
    """
    flat = np.ascontiguousarray(symbols)
    columns = symbols.shape[-1] if symbols.ndim > 1 else 1
    out = np.empty(symbols.shape, np.int16)
    if out.size:
        _core.trellis_points(
            flat.ctypes.data, out.ctypes.data, out.size // columns, columns, bits, MASKS[bits], threads()
        )
    return out
