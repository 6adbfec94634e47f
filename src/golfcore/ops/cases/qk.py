"""Rows for norm, rotation and gain of queries and keys."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from golfcore.ops.cases.base import Case, Tensors, normal
from golfcore.ops.qk import qk
from golfcore.ops.reference.qk import qk as reference


def plain(
    q_BTNH: torch.Tensor,
    k_BTKH: torch.Tensor,
    cos_TR: torch.Tensor,
    sin_TR: torch.Tensor,
    gain_N: torch.Tensor | None = None,
    positions_BT: torch.Tensor | None = None,
    eps: float = 1e-6,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute it as a training script does: tables and gain cast to the dtype of q, torch's own rms_norm."""
    dtype = q_BTNH.dtype
    if positions_BT is None:
        cos, sin = (t[: q_BTNH.shape[1], None].to(dtype) for t in (cos_TR, sin_TR))
    else:
        cos, sin = (t[positions_BT][..., None, :].to(dtype) for t in (cos_TR, sin_TR))
    q, k = (_rotate(F.rms_norm(x, (x.shape[-1],), eps=eps), cos, sin) for x in (q_BTNH, k_BTKH))
    return (q if gain_N is None else q * gain_N.to(dtype)[:, None]), k


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    half = cos.shape[-1]
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat((a * cos + b * sin, b * cos - a * sin, rest), dim=-1)


def _build(
    dtype: torch.dtype, generator: torch.Generator, *, shape: tuple[int, int, int, int, int], half: int,
    gain: bool = True, documents: tuple[int, ...] = (), wide: bool = False,
) -> Tensors:  # fmt: skip
    """``shape`` is B, T, N, K, H. ``wide``: q and k are views into one product [B, T, (N + 2 K) H]."""
    b, t, n, k, h = shape
    if wide:
        product = normal(b, t, n + 2 * k, h, generator=generator, dtype=dtype)
        q_BTNH, k_BTKH = product[:, :, :n], product[:, :, n : n + k]
    else:
        q_BTNH = normal(b, t, n, h, generator=generator, dtype=dtype)
        k_BTKH = normal(b, t, k, h, generator=generator, dtype=dtype)
    angle_TR = torch.outer(torch.arange(t + 3.0), 100.0 ** -torch.linspace(0, 1, half)) if half else torch.ones(t, 0)
    made: Tensors = {"q_BTNH": q_BTNH, "k_BTKH": k_BTKH, "cos_TR": angle_TR.cos(), "sin_TR": angle_TR.sin()}
    if gain:
        made["gain_N"] = 1 + normal(n, generator=generator)
    if documents:
        steps = torch.cat([torch.arange(length) for length in documents]).int()
        made["positions_BT"] = steps.expand(b, t)
    return made


def _transposed(dtype: torch.dtype, generator: torch.Generator) -> Tensors:
    made = _build(dtype, generator, shape=(2, 9, 4, 2, 32), half=8)
    made["q_BTNH"] = normal(2, 4, 9, 32, generator=generator, dtype=dtype).transpose(1, 2)
    made["k_BTKH"] = normal(2, 9, 32, 2, generator=generator, dtype=dtype).transpose(2, 3)
    return made


def _touched(arguments: Tensors) -> float:
    q: torch.Tensor = arguments["q_BTNH"]
    k: torch.Tensor = arguments["k_BTKH"]
    return 5.0 * (q.numel() + k.numel()) * q.element_size()  # forward: x, y; backward: x, dy, dx


def _case(name: str, build: Any, *, gain: bool = True, **more: Any) -> Case:
    return Case(
        op="qk", name=name, build=build, call=qk, reference=reference, plain=plain,
        grads=("q_BTNH", "k_BTKH", *(("gain_N",) if gain else ())), touched=_touched, **more,
    )  # fmt: skip


CASES = (
    _case("tiny", partial(_build, shape=(2, 3, 2, 1, 6), half=2), gradcheck=True),
    _case("no-gain-tiny", partial(_build, shape=(1, 3, 1, 1, 4), half=2, gain=False), gain=False, gradcheck=True),
    _case("documents-tiny", partial(_build, shape=(2, 5, 2, 2, 4), half=1, documents=(1, 3, 1)), gradcheck=True),
    _case("empty", partial(_build, shape=(2, 0, 4, 2, 32), half=8)),
    _case("one-token", partial(_build, shape=(1, 1, 4, 2, 32), half=16)),
    _case("one-token-each", partial(_build, shape=(7, 1, 3, 1, 64), half=8, wide=True)),
    _case("documents", partial(_build, shape=(1, 150, 4, 4, 32), half=8, documents=(1, 70, 1, 78))),
    *(
        _case(f"gqa-{n}-{k}-h{h}-r{2 * half}", partial(_build, shape=(3, 67, n, k, h), half=half, wide=wide))
        for n, k, h, half, wide in (
            (8, 8, 32, 16, False),
            (8, 4, 64, 8, True),
            (8, 2, 64, 32, True),
            (8, 1, 128, 64, False),
            (6, 3, 128, 16, True),
            (5, 1, 48, 0, True),
            (3, 3, 20, 9, False),
        )
    ),
    _case("transposed", _transposed),
    *(
        _case(
            f"pocket-h{h}",
            partial(_build, shape=(32, 256, 256 // h, 128 // h, h), half=half),
            bench=True,
            shape=f"32x256x{256 // h}/{128 // h}x{h}",
        )
        for h, half in ((32, 16), (64, 8))
    ),
)
