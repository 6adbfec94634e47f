"""Find the segments of packed rows: the bounds between which attention stays, as ``ops.attention`` takes them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from golfcore.data.contracts import Documents, Ids

# Bounds come in multiples of this number, so that a run has a few lengths of them and not one for each batch.
BUCKET = 64


def segment_bounds(ids_BT: Ids, documents: Documents) -> NDArray[np.int32]:
    """Return the bounds of the segments of ``ids_BT`` over all rows end to end, int32, from 0 to B T."""
    starts_BT = ids_BT == documents.bos
    starts_BT[:, :1] = True
    first = np.flatnonzero(starts_BT)
    if documents.max_segment:
        lengths = np.diff(first, append=ids_BT.size)
        pieces = -(-lengths // documents.max_segment)
        number = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)  # of a piece in its document
        first = np.repeat(first, pieces) + documents.max_segment * number
    return np.append(first, ids_BT.size).astype(np.int32)


def bounds_of_rows(bounds: NDArray[np.int32], begin: int, end: int) -> NDArray[np.int32]:
    """Return the bounds within tokens ``begin`` to ``end``, both the edges of rows, counted from ``begin``.

    The last bound is repeated until their number is a multiple of ``BUCKET``: empty segments at the end.
    """
    first, last = np.searchsorted(bounds, (begin, end))
    own = bounds[first : last + 1] - np.int32(begin)
    return np.pad(own, (0, -len(own) % BUCKET), mode="edge")
