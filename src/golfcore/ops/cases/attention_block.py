"""Rows for what lies between a block's projections: norm, rotation and gain of q and k; attention, XSA and gate."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from golfcore.ops.attention import attention
from golfcore.ops.cases.attention import plain as plain_attention
from golfcore.ops.cases.base import Case, Tensors, normal
from golfcore.ops.cases.qk import plain as plain_qk
from golfcore.ops.qk import qk
from golfcore.ops.reference.attention import attention as reference_attention
from golfcore.ops.reference.qk import qk as reference_qk


def _block(rotate: Callable[..., Any], attend: Callable[..., Any]) -> Callable[..., torch.Tensor]:
    """The block in terms of one way to do each of its operations."""

    def block(
        q_BTNH: torch.Tensor, k_BTKH: torch.Tensor, v_BTKH: torch.Tensor, gate_BTN: torch.Tensor,
        cos_TR: torch.Tensor, sin_TR: torch.Tensor, gain_N: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        q_BTNH, k_BTKH = rotate(q_BTNH, k_BTKH, cos_TR, sin_TR, gain_N)
        y_BTNH: torch.Tensor = attend(q_BTNH, k_BTKH, v_BTKH, gate_BTN, xsa=True)
        return y_BTNH

    return block


def _build(dtype: torch.dtype, generator: torch.Generator, *, shape: tuple[int, int, int, int, int]) -> Tensors:
    b, t, n, k, h = shape
    angle_TR = torch.outer(torch.arange(t).float(), 10_000.0 ** (-torch.arange(h // 2) / (h // 2)))
    q_BTNH, k_BTKH, v_BTKH = (normal(b, t, heads, h, generator=generator, dtype=dtype) for heads in (n, k, k))
    gate_BTN = torch.rand(b, t, n, generator=generator)
    return {
        "q_BTNH": q_BTNH, "k_BTKH": k_BTKH, "v_BTKH": v_BTKH, "gate_BTN": gate_BTN,
        "cos_TR": angle_TR.cos(), "sin_TR": angle_TR.sin(), "gain_N": 1 + normal(n, generator=generator).abs(),
    }  # fmt: skip


def _row(name: str, shape: tuple[int, int, int, int, int], *, bench: bool) -> Case:
    b, t, n, k, h = shape
    return Case(
        op="attention", name=name, build=partial(_build, shape=shape), call=_block(qk, attention),
        reference=_block(reference_qk, reference_attention), plain=_block(plain_qk, plain_attention),
        grads=("q_BTNH", "k_BTKH", "v_BTKH", "gate_BTN", "gain_N"), bench=bench,
        shape=f"B {b}, T {t}, N {n}, K {k}, H {h}, qk + XSA + gate",
    )  # fmt: skip


CASES = (
    _row("block-ragged", (2, 37, 4, 2, 32), bench=False),
    _row("block-t256", (8, 256, 4, 2, 64), bench=False),  # long enough for an f32 sum's order to matter
    _row("block-pocket-h32", (32, 256, 8, 4, 32), bench=True),
    _row("block-pocket-h64", (32, 256, 4, 2, 64), bench=True),
    _row("block-t1024-h64", (8, 1024, 8, 4, 64), bench=True),
)
