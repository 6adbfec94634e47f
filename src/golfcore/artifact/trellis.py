"""Trellis-coded symbols (docs/format.md, 4): from symbols to points of a grid of half steps.

The lowest bit of a column's state makes symbol k the point ``2k + (state & 1)``; the weight is the point times half the
row's scale. Down a column, ``state = (state >> 1) ^ MASKS[bits][point & 3]``, from 0 in the first row.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from golfcore import _core
from golfcore.errors import InputError

# Ungerboeck's one-dimensional codes of 2^bits states, parity checks h0 and h1 in octal.
_CODES = {2: (0o5, 0o2), 3: (0o13, 0o4), 4: (0o23, 0o4), 5: (0o45, 0o10), 6: (0o103, 0o24), 7: (0o235, 0o126),
          8: (0o515, 0o362)}  # fmt: skip
MASKS = {bits: (0, h0 >> 1, h1 >> 1, (h0 ^ h1) >> 1) for bits, (h0, h1) in _CODES.items()}


def points(symbols: npt.NDArray[np.int8], bits: int) -> npt.NDArray[np.int16]:
    """The points of symbols that were coded with ``bits`` bits of state, in their shape.

    The last axis is the column, all others together the row; a vector is one column. One shift and one exclusive or a
    symbol, a run of columns a thread.
    """
    flat = np.ascontiguousarray(symbols)
    columns = symbols.shape[-1] if symbols.ndim > 1 else 1
    out = np.empty(symbols.shape, np.int16)
    if out.size:
        _core.trellis_points(
            flat.ctypes.data, out.ctypes.data, out.size // columns, columns, bits, MASKS[bits], os.cpu_count() or 1
        )
    return out


def points_in_numpy(symbols: npt.NDArray[np.int8], bits: int) -> npt.NDArray[np.int16]:
    """``points`` without the compiled core: a row at a time."""
    rows = symbols.reshape(-1, symbols.shape[-1] if symbols.ndim > 1 else 1)
    return _walk(rows, np.zeros(rows.shape[1], np.uint8), bits)[0].reshape(symbols.shape)


def _walk(
    symbols_RL: npt.NDArray[np.int8], state_L: npt.NDArray[np.uint8], bits: int
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
    """Points [R, L] of independent lanes L that start in ``state_L``, and the states that they end in."""
    points_RL = 2 * symbols_RL.astype(np.int16)
    masks = np.array(MASKS[bits], np.uint8)
    for point_L in points_RL:
        point_L += state_L & 1
        state_L = (state_L >> 1) ^ masks[point_L & 3]
    return points_RL, state_L


@dataclass(frozen=True)
class Segmented:
    """Symbols laid out for many lanes at once, as a GPU wants them: a lane is a segment of ``rows`` rows of one column.

    A column's state depends on all symbols above, so each segment carries the state it starts in: a byte, made once
    when a file is read. Neighbouring lanes are neighbouring columns, so that a warp's loads of a row are contiguous;
    lane ``s * columns + c`` reads ``symbols_RL[r, lane]`` for each r, without a look at any other lane.

    Attributes:
        symbols_RL: int8 [rows, lanes]; zeros follow a matrix whose rows fill no whole segment.
        state_L: uint8 [lanes].
        shape: of the matrix, [R, C].
        bits: of state.
    """

    symbols_RL: npt.NDArray[np.int8]
    state_L: npt.NDArray[np.uint8]
    shape: tuple[int, int]
    bits: int

    def points(self, lanes: slice = slice(None)) -> npt.NDArray[np.int16]:
        """The points [rows, lanes] of some lanes, from them alone."""
        return _walk(self.symbols_RL[:, lanes], self.state_L[lanes], self.bits)[0]

    def matrix(self) -> npt.NDArray[np.int16]:
        """The points of the whole matrix, [R, C]: every lane walked at once."""
        rows, columns = self.shape
        points_RSC = self.points().reshape(len(self.symbols_RL), -1, columns)
        return np.ascontiguousarray(points_RSC.transpose(1, 0, 2)).reshape(-1, columns)[:rows]


def segmented(symbols_RC: npt.NDArray[np.int8], bits: int, rows: int = 64) -> Segmented:
    """The layout ``Segmented`` of trellis-coded symbols [R, C], ``rows`` rows a segment.

    Raises:
        InputError: no matrix, or no rows.
    """
    if symbols_RC.ndim != 2 or rows < 1:
        raise InputError(f"segments of {rows} rows of shape {symbols_RC.shape}; expected a matrix and at least one row")
    total, columns = symbols_RC.shape
    segments = -(-total // rows)
    padded = np.zeros((segments * rows, columns), np.int8)
    padded[:total] = symbols_RC
    symbols_SRC = padded.reshape(segments, rows, columns)
    state_SC = np.zeros((segments, columns), np.uint8)
    for s in range(segments - 1):
        state_SC[s + 1] = _walk(symbols_SRC[s], state_SC[s], bits)[1]
    symbols_RL = np.ascontiguousarray(symbols_SRC.transpose(1, 0, 2)).reshape(rows, -1)
    return Segmented(symbols_RL, state_SC.reshape(-1), (total, columns), bits)
