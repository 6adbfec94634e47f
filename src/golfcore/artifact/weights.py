"""Restore the weights of a model from the tensors of a container (docs/reference/formats.md, 4), in plain numpy.

A parameter is one tensor of floats or fp8 patterns, or a tensor of symbols (small integers) with a tensor of step sizes
beside it, ".scale": one step size per row, or one per group of a row's columns. ".columns" has one factor per column;
".left" and ".right" are the factors of a low-rank matrix that is added, and are stored as parameters themselves.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from golfcore.container.tensors import Array
from golfcore.container.trellis import points

SCALE, COLUMNS, LEFT, RIGHT = ".scale", ".columns", ".left", ".right"
Floats = npt.NDArray[np.float32]


def _e4m3() -> Floats:
    """Return the 256 values of fp8 e4m3: sign, four bits of exponent (bias 7), three of mantissa, no infinity."""
    code = np.arange(256)
    exponent, mantissa = code >> 3 & 15, code & 7
    size = np.where(exponent > 0, (8 + mantissa) * 2.0 ** (exponent - 10), mantissa * 2.0**-9)
    size[(code & 127) == 127] = np.nan
    return np.where(code & 128, -size, size).astype(np.float32)


E4M3 = _e4m3()


def restore(name: str, arrays: Mapping[str, Array], bits: Mapping[str, tuple[int, int]]) -> Floats:
    """Return the values of a parameter, fp32.

    Args:
        name: name of the parameter.
        arrays: every tensor of the container by name.
        bits: bits per symbol and of the trellis's state, by name; (0, 0) if a tensor holds no symbols.

    Raises:
        ValueError: a tensor is missing or does not fit the others.
    """
    if name not in arrays:
        raise ValueError(f"tensor {name!r} is missing")
    stored, (width, trellis) = arrays[name], bits.get(name, (0, 0))
    values = _scaled(name, symbols(stored, width, trellis), arrays)
    if (column_I := arrays.get(name + COLUMNS)) is not None:
        if values.ndim != 2 or column_I.shape != values.shape[1:]:
            raise ValueError(f"{name!r} has shape {values.shape}, its columns' factors {column_I.shape}")
        values *= column_I.astype(np.float32)
    if name + LEFT in arrays:
        left_OR, right_RI = restore(name + LEFT, arrays, bits), restore(name + RIGHT, arrays, bits)
        if left_OR.ndim != 2 or right_RI.ndim != 2 or left_OR.shape[1] != right_RI.shape[0]:
            raise ValueError(f"{name!r}: factors of shapes {left_OR.shape} and {right_RI.shape} do not multiply")
        if (left_OR.shape[0], right_RI.shape[1]) != values.shape:
            raise ValueError(f"{name!r} has shape {values.shape}, its correction {left_OR.shape} by {right_RI.shape}")
        values += left_OR @ right_RI
    return values


def symbols(stored: Array, width: int, trellis: int) -> Floats:
    """Return the values of symbols as multiples of the step size; floats stay as they are."""
    if trellis:
        return points(stored, trellis).astype(np.float32) * np.float32(0.5)
    if width == 1:
        return stored.astype(np.float32) * 2 + 1  # signs
    if stored.dtype == np.uint8:
        return E4M3[stored]
    return stored.astype(np.float32)


def _scaled(name: str, values: Floats, arrays: Mapping[str, Array]) -> Floats:
    scale = arrays.get(name + SCALE)
    if scale is None:
        return values
    scale = scale.astype(np.float32)
    if values.ndim == 2 and scale.shape == values.shape[:1]:
        return values * scale[:, None]
    if values.ndim == 2 and scale.ndim == 2 and len(scale) == len(values) and values.shape[1] % scale.shape[1] == 0:
        groups = values.reshape(len(values), scale.shape[1], -1)
        return (groups * scale[:, :, None]).reshape(values.shape)
    raise ValueError(f"{name!r} has shape {values.shape}, its scales {scale.shape}")
