"""Squared activations of the MLP, forward and backward in one pass each."""

from __future__ import annotations

from typing import Any

import torch

from golfcore.errors import InputError
from golfcore.ops import kernels
from golfcore.ops.arguments import check_float
from golfcore.ops.reference.activation import leaky2 as reference
from golfcore.ops.registry import DTYPE_CODE, address, define_op, native, register_backward


def relu2(u: torch.Tensor) -> torch.Tensor:
    """Square the positive part: ``max(u, 0)**2``.

    ``u`` has any shape and float dtype; the result has the same. Computed in fp32.

    Raises:
        InputError: ``u`` is not a floating-point tensor.
    """
    return leaky2(u, 0.0)


def leaky2(u: torch.Tensor, slope: float = 0.5) -> torch.Tensor:
    """Square a leaky ReLU: ``phi(u)**2`` with ``phi(u) = u`` above zero and ``slope * u`` below.

    ``u`` has any shape and float dtype; the result has the same. Computed in fp32.

    Raises:
        InputError: ``u`` is not a floating-point tensor, or ``slope`` lies outside 0..1.
    """
    check_float("activation", "u", u)
    if not 0.0 <= slope <= 1.0:
        raise InputError(f"activation: slope = {slope}; expected 0 to 1 (0 is relu squared)")
    if not native("activation", u):
        return reference(u, slope)
    result: torch.Tensor = _leaf(u, slope)
    return result


def _forward(u: torch.Tensor, slope: float) -> torch.Tensor:
    u = u.contiguous()
    y = torch.empty_like(u)
    kernels.activation_forward(u, dtype=DTYPE_CODE[u.dtype], u=address(u), y=address(y), n=u.numel(), slope=slope)
    return y


def _backward(u: torch.Tensor, dy: torch.Tensor, slope: float) -> torch.Tensor:
    u, dy = u.contiguous(), dy.contiguous()
    du = torch.empty_like(u)
    kernels.activation_backward(
        u, dtype=DTYPE_CODE[u.dtype], u=address(u), dy=address(dy), du=address(du), n=u.numel(), slope=slope
    )
    return du


_leaf = define_op(
    "activation",
    "activation(Tensor u, float slope) -> Tensor",
    _forward,
    lambda u, slope: u.new_empty(u.shape),
    device=_forward,
)
_leaf_backward = define_op(
    "activation",
    "activation_backward(Tensor u, Tensor dy, float slope) -> Tensor",
    _backward,
    lambda u, dy, slope: u.new_empty(u.shape),
    device=_backward,
)


def _setup(ctx: Any, inputs: tuple[torch.Tensor, float], output: torch.Tensor) -> None:
    u, ctx.slope = inputs
    ctx.save_for_backward(u)


def _gradient(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor, None]:
    return _leaf_backward(ctx.saved_tensors[0], dy, ctx.slope), None


register_backward(_leaf, _setup, _gradient)
