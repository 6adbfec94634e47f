"""Rows for the head."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F

from golfcore.ops import products
from golfcore.ops.cases.base import Case, Tensors, normal
from golfcore.ops.head import linear_cross_entropy
from golfcore.ops.reference.head import linear_cross_entropy as reference


def plain(
    x: torch.Tensor, w: torch.Tensor, targets: torch.Tensor, softcap: float, reduction: str = "mean"
) -> torch.Tensor:
    """Compute it as the contest's baseline does: logits in the input's dtype, the loss in fp32."""
    logits = products.linear(x, w).float()
    if softcap > 0:
        logits = softcap * torch.tanh(logits / softcap)
    losses = F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction=reduction)
    return losses if reduction == "mean" else losses.view(targets.shape)


def _build(
    dtype: torch.dtype, generator: torch.Generator, *, n: int, v: int, d: int, softcap: float = 30.0,
    reduction: str = "mean", spread: float = 1.0, w_fp32: bool = False,
) -> Tensors:  # fmt: skip
    return {
        "x": normal(n, d, generator=generator, dtype=dtype),
        "w": normal(v, d, generator=generator, dtype=torch.float32 if w_fp32 else dtype) * (spread / d**0.5),
        "targets": torch.randint(0, v, (n,), generator=generator), "softcap": softcap, "reduction": reduction,
    }  # fmt: skip


def _strided(dtype: torch.dtype, generator: torch.Generator) -> Tensors:
    built = _build(dtype, generator, n=24, v=40, d=32)
    built["x"] = normal(32, 24, generator=generator, dtype=dtype).t().reshape(2, 12, 32).transpose(0, 1)
    built["w"] = normal(32, 40, generator=generator, dtype=dtype).t() * 0.3
    built["targets"] = built["targets"].view(2, 12).t()
    return built


def _touched(arguments: Tensors) -> float:
    x: torch.Tensor = arguments["x"]
    w: torch.Tensor = arguments["w"]
    return 2.0 * (x.numel() * x.element_size() + w.numel() * w.element_size())


def _case(name: str, build: Callable[..., Tensors], *, bench: bool = False, shape: str = "", flops: float = 0) -> Case:
    return Case(
        op="head", name=name, build=build, call=linear_cross_entropy, reference=reference, plain=plain,
        grads=("x", "w"), torch_products=True, gradcheck=name.startswith("tiny"),
        bench=bench, shape=shape, flops=flops, touched=_touched,
    )  # fmt: skip


CASES = tuple(
    _case(name, build)
    for name, build in (
        ("tiny", partial(_build, n=3, v=5, d=4)),
        ("tiny-none", partial(_build, n=3, v=5, d=4, reduction="none")),
        ("tiny-uncapped", partial(_build, n=3, v=5, d=4, softcap=0.0)),
        ("empty-none", partial(_build, n=0, v=17, d=8, reduction="none")),
        ("one-token", partial(_build, n=1, v=260, d=64)),
        ("one-word", partial(_build, n=7, v=1, d=16)),
        # Two chunks of unequal length, a vocabulary that no vector width divides.
        ("ragged", partial(_build, n=531, v=4099, d=24, spread=4.0)),
        ("ragged-none", partial(_build, n=531, v=4099, d=24, spread=4.0, reduction="none")),
        ("saturated", partial(_build, n=65, v=129, d=32, softcap=5.0, spread=12.0)),
        ("wide-cap", partial(_build, n=65, v=129, d=32, softcap=500.0, spread=90.0)),
        ("uncapped", partial(_build, n=65, v=129, d=32, softcap=0.0, spread=90.0)),
        # On a GPU: rows that stay in registers, without and with a search for the largest logit; rows that do not fit.
        ("packs", partial(_build, n=9, v=2568, d=16)),
        ("packs-uncapped", partial(_build, n=9, v=2568, d=16, softcap=0.0, spread=20.0)),
        ("long-rows", partial(_build, n=5, v=8208, d=8, softcap=500.0, spread=90.0)),
        ("master-weights", partial(_build, n=530, v=4100, d=16, w_fp32=True)),
        ("strided", _strided),
    )
) + tuple(
    _case(name, partial(_build, n=8192, v=v, d=d, w_fp32=True), bench=True, shape=f"8192x{v}x{d}",
          flops=6.0 * 8192 * v * d)
    for name, v, d in (("pocket", 1024, 192), ("pocket-2k", 2048, 256), ("contest", 8192, 256))
)  # fmt: skip
