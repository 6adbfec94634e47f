"""The arrays that a container holds: their kinds, and the limits on their names, roles and shapes."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

MAX_TENSORS = 65_535
MAX_NAME = 255  # bytes of UTF-8
MAX_NDIM = 8
MAX_DIM = (1 << 31) - 1
MAX_TENSOR_BYTES = 1 << 40  # also with zero dims counted as one, so that numpy can always hold the shape
MAX_BITS = 8
MAX_TRELLIS = 8
QUANTIZED = 0x80  # a kind code is QUANTIZED | max(trellis - 1, 0) << 4 | bits, or an index into DTYPES

DTYPES: tuple[str, ...] = ("f16", "bf16", "f32", "i8", "u8", "i16", "u16", "i32", "i64")
# numpy has no bfloat16: such a tensor is an array of its 16-bit patterns.
_NUMPY: dict[str, np.dtype[Any]] = {
    "f16": np.dtype("<f2"), "bf16": np.dtype("<u2"), "f32": np.dtype("<f4"), "i8": np.dtype("i1"),
    "u8": np.dtype("u1"), "i16": np.dtype("<i2"), "u16": np.dtype("<u2"), "i32": np.dtype("<i4"),
    "i64": np.dtype("<i8"),
}  # fmt: skip
_ROLE = re.compile(r"[a-z0-9][a-z0-9_.-]{0,31}", re.ASCII)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class Kind:
    """The element type of a chunk: a dtype of ``DTYPES``, or int8 symbols of ``bits`` bits (dtype ``"i8"``).

    If ``trellis`` is above 0, the symbols are trellis-coded, with that many bits of state
    (``golfcore.container.trellis``).
    """

    dtype: str
    bits: int = 0
    trellis: int = 0

    @property
    def code(self) -> int:
        if not self.bits:
            return DTYPES.index(self.dtype)
        return QUANTIZED | max(self.trellis - 1, 0) << 4 | self.bits

    @property
    def label(self) -> str:
        """``"int6"`` for six-bit symbols, ``"int6/8"`` with a trellis of 8 states, else the dtype."""
        if not self.bits:
            return self.dtype
        return f"int{self.bits}/{1 << self.trellis}" if self.trellis else f"int{self.bits}"

    @property
    def numpy(self) -> np.dtype[Any]:
        """The little-endian dtype of the array."""
        return _NUMPY[self.dtype]

    @property
    def itemsize(self) -> int:
        return self.numpy.itemsize

    @classmethod
    def from_code(cls, code: int) -> Kind | None:
        """Return the kind with this code, or None if there is none."""
        bits, trellis = code & 0x0F, code >> 4 & 0x07
        if code & QUANTIZED and 0 < bits <= MAX_BITS:
            return cls("i8", bits, trellis + 1 if trellis else 0)
        return cls(DTYPES[code]) if code < len(DTYPES) else None


@dataclass(frozen=True, eq=False)
class Tensor:
    """An array to store.

    Attributes:
        name: 1 to 255 bytes of UTF-8 without control characters, unique in its container.
        role: its purpose (``"matrix"``, ``"scale"``, ``"control"``, ``"code"``): ``[a-z0-9][a-z0-9_.-]*``, at most
            32 characters. Tensors of one role and kind are coded together, in the order given.
        array: the values; any memory layout and byte order.
        bits: if above 0, ``array`` is int8 and holds symbols in [-2**(bits-1), 2**(bits-1)).
        dtype: one of ``DTYPES``; empty for the array's own. Only ``"bf16"`` needs naming (a uint16 array of patterns).
        trellis: bits of trellis state, 2 to 8, if ``bits`` is above 0; 0 for no trellis.
    """

    name: str
    role: str
    array: Array
    bits: int = 0
    dtype: str = ""
    trellis: int = 0


def kind_of(tensor: Tensor) -> Kind | str:
    """Return the kind of a tensor, or a text on what is wrong with its array, dtype or bits."""
    array = tensor.array
    if not isinstance(array, np.ndarray):
        return f"array is a {type(array).__name__}, expected a numpy array (np.asarray)"
    little = array.dtype.newbyteorder("<")
    own = next((name for name, dtype in _NUMPY.items() if dtype == little and name != "bf16"), None)
    if own is None:
        return f"array has dtype {array.dtype}, expected one of {', '.join(DTYPES)} (bf16 as uint16 patterns)"
    dtype = tensor.dtype or own
    if dtype not in DTYPES or _NUMPY[dtype] != little:
        return f"dtype = {tensor.dtype!r} does not fit an array of {array.dtype}"
    if not tensor.bits:
        return f"trellis = {tensor.trellis} without bits" if tensor.trellis else Kind(dtype)
    if dtype != "i8" or not 0 < tensor.bits <= MAX_BITS:
        return f"bits = {tensor.bits} with dtype {dtype}: symbols are int8 of 1 to {MAX_BITS} bits"
    if tensor.trellis and not 2 <= tensor.trellis <= MAX_TRELLIS:
        return f"trellis = {tensor.trellis}, expected 0 or 2 to {MAX_TRELLIS} bits of state"
    return symbol_problem(array, tensor.bits) or Kind("i8", tensor.bits, tensor.trellis)


def symbol_problem(symbols: Array, bits: int) -> str | None:
    """Return a text that names the first symbol outside the range of ``bits`` bits, or None."""
    half = 1 << (bits - 1)
    if not symbols.size or (int(symbols.min()) >= -half and int(symbols.max()) < half):
        return None
    flat = symbols.reshape(-1)
    index = int(np.argmax((flat < -half) | (flat >= half)))
    return f"symbol {index} is {int(flat[index])}, expected {-half} to {half - 1} ({bits} bits)"


def name_problem(name: bytes) -> str | None:
    """Return a text on what is wrong with a tensor's name in UTF-8, or None."""
    if not 0 < len(name) <= MAX_NAME:
        return f"a name of {len(name)} bytes, expected 1 to {MAX_NAME}"
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return f"the name {name!r} is not UTF-8"
    return f"the name {text!r} holds a control character" if _CONTROL.search(text) else None


def role_problem(role: str) -> str | None:
    """Return a text on what is wrong with a role, or None."""
    return None if _ROLE.fullmatch(role) else f"role {role!r}, expected [a-z0-9][a-z0-9_.-]* of at most 32 characters"


def shape_problem(shape: tuple[int, ...], itemsize: int) -> str | None:
    """Return a text on what is wrong with a shape, or None."""
    if len(shape) > MAX_NDIM:
        return f"{len(shape)} dimensions, expected at most {MAX_NDIM}"
    if any(d > MAX_DIM for d in shape) or math.prod(max(d, 1) for d in shape) * itemsize > MAX_TENSOR_BYTES:
        return f"shape {shape} is beyond {MAX_DIM} a dimension or {MAX_TENSOR_BYTES} bytes"
    return None
