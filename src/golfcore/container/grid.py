"""The logarithmic grid of row scales: fp16 numbers an eighth of an octave apart, and their indices.

Index 0 is zero; index 1 + 8 e + j is ``2^(e - 14) * MANTISSA[j] / 1024``, the fp16 number nearest to
``2^(e - 14 + j/8)``, from 2^-14 (the smallest normal fp16 number) to about 60,000.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

MANTISSA = (1024, 1117, 1218, 1328, 1448, 1579, 1722, 1878)  # 1024 * 2^(j/8), rounded
SIZE = 241

# An fp16 number is its exponent from bit 10 up and its mantissa without the leading one below.
_PATTERNS: npt.NDArray[np.uint16] = np.array(
    [0, *((e + 1) << 10 | m - 1024 for e in range(30) for m in MANTISSA)], np.uint16
)
VALUES: npt.NDArray[np.float16] = _PATTERNS.view(np.float16)
"""The grid, ascending, fp16 [SIZE]."""


def to_index(patterns: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint8] | None:
    """Return the grid indices of fp16 bit patterns, or None if one of them is not on the grid."""
    index = np.minimum(np.searchsorted(_PATTERNS, patterns), SIZE - 1)
    return index.astype(np.uint8) if np.array_equal(_PATTERNS[index], patterns) else None


def from_index(index: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """Return the fp16 bit patterns of grid indices below ``SIZE``."""
    patterns: npt.NDArray[np.uint16] = _PATTERNS[index]
    return patterns


def nearest(scale: npt.NDArray[np.float32], *, up: bool = False) -> npt.NDArray[np.float16]:
    """Return the grid value nearest in ratio to each scale, or with ``up`` the least that is not below it.

    Below half the smallest value (with ``up``: only for zero) it is 0; above the largest it is infinite.
    """
    values = VALUES.astype(np.float64)
    bounds = values[1:] if up else np.concatenate(([values[1] / 2], np.sqrt(values[1:-1] * values[2:])))
    wanted = scale.astype(np.float64)
    index = np.searchsorted(bounds, wanted, "left") + (wanted > 0) if up else np.searchsorted(bounds, wanted, "right")
    over = wanted > values[-1] * (1 if up else 2 ** (1 / 16))
    return np.where(over, np.float16(np.inf), VALUES[np.minimum(index, SIZE - 1)])
