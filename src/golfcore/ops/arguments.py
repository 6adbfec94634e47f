"""Check the tensors that an operation is given, and lay them out as kernels read them."""

from __future__ import annotations

import torch

from golfcore.errors import InputError


def check_same(
    op: str, name: str, x: torch.Tensor, like_name: str, like: torch.Tensor, dtype: torch.dtype | None = None
) -> None:
    """Raise InputError unless ``x`` is on the device of ``like`` and has ``dtype`` (default: that of ``like``)."""
    if x.device != like.device:
        raise InputError(
            f"{op}: {name} is on {x.device}, {like_name} on {like.device}; move one with {name}.to({like_name}.device)"
        )
    expected = dtype or like.dtype
    if x.dtype != expected:
        raise InputError(f"{op}: {name} is {x.dtype}; expected {expected}: convert it with {name}.to({expected})")


def check_shape(op: str, name: str, x: torch.Tensor, expected: tuple[int, ...]) -> None:
    """Raise InputError unless ``x`` has the shape ``expected``."""
    if tuple(x.shape) != expected:
        raise InputError(f"{op}: {name} has shape {tuple(x.shape)}; expected {expected}")


def check_float(op: str, name: str, x: torch.Tensor) -> None:
    """Raise InputError unless ``x`` is a floating-point tensor."""
    if not x.is_floating_point():
        raise InputError(f"{op}: {name} is {x.dtype}; expected a floating-point tensor, for example {name}.float()")


def rows(x: torch.Tensor) -> torch.Tensor:
    """Return ``x`` as [rows, last] with a contiguous last dimension; a view if one row stride describes it."""
    d = x.shape[-1]
    if x.stride(-1) != 1 and d > 1:
        x = x.contiguous()
    return x.reshape(-1, d) if x.numel() else x.new_empty(0, d)


def maybe_rows(x: torch.Tensor | None) -> torch.Tensor | None:
    """Return ``rows(x)``; None for an absent tensor."""
    return None if x is None else rows(x)


def maybe_contiguous(x: torch.Tensor | None) -> torch.Tensor | None:
    """Return ``x.contiguous()``; None for an absent tensor."""
    return None if x is None else x.contiguous()


def row_stride(x_ND: torch.Tensor | None) -> int:
    """Return the distance of rows in elements; 0 for an absent tensor."""
    return 0 if x_ND is None else x_ND.stride(0)


def heads(x_BTNH: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Return ``x`` with each token's heads contiguous, and the stride from token to token in elements.

    A view into a wider product is taken as it is; anything else is copied.
    """
    (b, t, n, h), (of_b, of_t, of_n, of_h) = x_BTNH.shape, x_BTNH.stride()
    together = (of_h == 1 or h == 1) and (of_n == h or n == 1)
    if not together or (b > 1 and t > 0 and of_b != t * of_t):
        x_BTNH = x_BTNH.contiguous()
        of_b, of_t = x_BTNH.stride()[:2]
    return x_BTNH, of_t if t > 1 else of_b  # a dimension of size 1 may have any stride
