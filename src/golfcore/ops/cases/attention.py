"""Rows for causal attention."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from golfcore.ops.attention import attention
from golfcore.ops.cases.base import Case, Tensors, normal
from golfcore.ops.reference.attention import attention as reference
from golfcore.ops.reference.attention import visible


def plain(
    q_BTNH: torch.Tensor,
    k_BTKH: torch.Tensor,
    v_BTKH: torch.Tensor,
    gate_BTN: torch.Tensor | None = None,
    cu_seqlens: torch.Tensor | None = None,
    window: int = 0,
    scale: float | None = None,
    xsa: bool = False,
) -> torch.Tensor:
    """Compute it as a training script does: scaled_dot_product_attention, a mask where it needs one, then the rest."""
    b, t, n, h = q_BTNH.shape
    mask = visible(t, cu_seqlens, window, q_BTNH.device) if window > 0 or cu_seqlens is not None else None
    # In bf16 as it stands, where that is slow too: in fp32 it would round less often than what it is the measure of.
    q, k, v = (x.transpose(1, 2) for x in (q_BTNH, k_BTKH, v_BTKH))
    y_BTNH = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=True
    ).transpose(1, 2)
    if xsa:
        y_BTKGH = y_BTNH.reshape(b, t, k_BTKH.shape[2], n // k_BTKH.shape[2], h)
        unit_BTK1H = F.normalize(v_BTKH, dim=-1).unsqueeze(3)
        y_BTNH = (y_BTKGH - (y_BTKGH * unit_BTK1H).sum(-1, keepdim=True) * unit_BTK1H).reshape(b, t, n, h)
    return y_BTNH if gate_BTN is None else y_BTNH * gate_BTN.to(y_BTNH.dtype).unsqueeze(-1)


def _build(
    dtype: torch.dtype, generator: torch.Generator, *, shape: tuple[int, int, int, int, int],
    documents: tuple[int, ...] = (), gate: torch.dtype | str | None = None, wide: bool = False, loud: float = 1.0,
    **options: Any,
) -> Tensors:  # fmt: skip
    """``shape`` is B, T, N, K, H. ``wide``: q, k and v are views of one product. ``loud`` multiplies the queries."""
    b, t, n, k, h = shape
    if wide:
        product = normal(b, t, n + 2 * k, h, generator=generator, dtype=dtype)
        q_BTNH, k_BTKH, v_BTKH = product[:, :, :n], product[:, :, n : n + k], product[:, :, n + k :]
    else:
        q_BTNH, k_BTKH, v_BTKH = (normal(b, t, x, h, generator=generator, dtype=dtype) for x in (n, k, k))
    made: Tensors = {"q_BTNH": q_BTNH * loud if loud != 1 else q_BTNH, "k_BTKH": k_BTKH, "v_BTKH": v_BTKH, **options}
    if gate is not None:
        made["gate_BTN"] = torch.rand(b, t, n, generator=generator).to(dtype if gate == "same" else torch.float32)
        made["gate_BTN"].view(-1)[:1] = 0  # a closed gate still has a gradient
    if documents:
        made["cu_seqlens"] = torch.tensor([0, *documents]).cumsum(0).int()
    return made


def _transposed(dtype: torch.dtype, generator: torch.Generator) -> Tensors:
    """Heads before tokens, tokens reversed by steps of two, and a last dimension that is not contiguous."""
    return {
        "q_BTNH": normal(2, 4, 70, 32, generator=generator, dtype=dtype).transpose(1, 2),
        "k_BTKH": normal(2, 140, 2, 32, generator=generator, dtype=dtype)[:, ::2],
        "v_BTKH": normal(2, 70, 32, 2, generator=generator, dtype=dtype).transpose(2, 3),
        "gate_BTN": torch.rand(2, 4, 70, generator=generator).transpose(1, 2),
        "xsa": True,
    }


def _touched(arguments: Tensors) -> float:
    q: torch.Tensor = arguments["q_BTNH"]
    k: torch.Tensor = arguments["k_BTKH"]
    # Forward reads q, k, v and writes y; backward reads them and dy and writes three gradients.
    return (5.0 * q.numel() + 6.0 * k.numel()) * q.element_size()


def _case(name: str, *, gate: torch.dtype | str | None = None, build: Any = None, label: str = "", **more: Any) -> Case:
    shape: tuple[int, int, int, int, int] = more.pop("shape", (1, 1, 1, 1, 32))
    inputs = {key: more.pop(key) for key in ("documents", "wide", "loud", "window", "scale", "xsa") if key in more}
    gated = gate is not None or build is not None
    return Case(
        op="attention", name=name, build=build or partial(_build, shape=shape, gate=gate, **inputs), call=attention,
        reference=reference, plain=plain, grads=("q_BTNH", "k_BTKH", "v_BTKH", *(("gate_BTN",) if gated else ())),
        touched=_touched, shape=label, **more,
    )  # fmt: skip


def _flops(b: int, t: int, n: int, h: int) -> float:
    """Two products forward and five backward, each over half of T x T."""
    return 7.0 * b * n * t * t * h


CASES = (
    _case("tiny", shape=(2, 3, 2, 1, 4), gate="same", xsa=True, gradcheck=True),
    _case("plain-tiny", shape=(1, 4, 2, 2, 3), scale=0.7, gradcheck=True),
    _case("documents-tiny", shape=(1, 6, 2, 1, 4), documents=(1, 4, 0, 1), window=2, xsa=True, gradcheck=True),
    _case("empty", shape=(2, 0, 4, 2, 32), gate="same", xsa=True),
    _case("empty-batch", shape=(0, 5, 4, 2, 64)),
    _case("one-token", shape=(3, 1, 4, 2, 32), gate="same"),
    *(
        _case(f"t{t}-h{h}", shape=(2, t, 2, 1, h), gate="same", xsa=True)
        for t, h in ((2, 128), (7, 32), (31, 64), (63, 128), (64, 32), (65, 64), (129, 32), (200, 128))
    ),
    *(
        _case(f"gqa-{n}-{k}-h{h}", shape=(1, 83, n, k, h), wide=True, gate=torch.float32, xsa=True)
        for n, k, h in ((4, 4, 32), (8, 4, 32), (8, 2, 64), (6, 1, 64), (3, 3, 128), (6, 2, 128))
    ),
    _case("documents", shape=(1, 257, 4, 2, 32), documents=(1, 1, 100, 0, 64, 1, 90), gate="same", xsa=True),
    _case("documents-of-one", shape=(1, 37, 2, 1, 64), documents=(1,) * 36 + (1,), gate="same"),
    _case("documents-window", shape=(1, 230, 2, 1, 64), documents=(150, 1, 79), window=70, gate="same", xsa=True),
    *(
        _case(f"window-{window}", shape=(1, 170, 2, 1, h), window=window)
        for window, h in ((1, 32), (2, 64), (5, 128), (33, 32), (64, 64), (65, 32), (100, 64), (169, 32), (500, 32))
    ),
    _case("scale", shape=(1, 70, 2, 1, 32), scale=0.03, xsa=True),
    _case("loud", shape=(1, 150, 2, 1, 64), loud=20.0),
    _case("gate-only", shape=(2, 70, 2, 2, 32), gate=torch.float32),
    _case("xsa-only", shape=(2, 70, 4, 2, 64), xsa=True),
    _case("transposed", build=_transposed),
    *(
        _case(
            name, shape=(b, t, n, k, h), gate="same", xsa=True, bench=True, flops=_flops(b, t, n, h),
            label=f"{b}x{t}x{n}/{k}x{h}",
        )
        for name, b, t, n, k, h in (
            ("pocket-h32", 32, 256, 8, 4, 32),
            ("pocket-h64", 32, 256, 4, 2, 64),
            ("t1024-h64", 8, 1024, 8, 4, 64),
        )
    ),
)  # fmt: skip
