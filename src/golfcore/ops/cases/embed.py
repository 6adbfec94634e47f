"""Rows for the embedding."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from golfcore.ops import products
from golfcore.ops.cases.base import Case, Tensors, normal
from golfcore.ops.embed import embed
from golfcore.ops.reference.embed import bigram_slots, starts
from golfcore.ops.reference.embed import embed as reference

Maybe = torch.Tensor | None


def _reference(
    ids: torch.Tensor, table: torch.Tensor, bigram: Maybe = None, bigram_scale: Maybe = None, smear_w: Maybe = None,
    smear_lambda: Maybe = None, *, bos: int, dtype: torch.dtype,
) -> torch.Tensor:  # fmt: skip
    return reference(ids, table, bigram, bigram_scale, smear_w, smear_lambda, bos, dtype)


def plain(
    ids: torch.Tensor, table: torch.Tensor, bigram: Maybe = None, bigram_scale: Maybe = None, smear_w: Maybe = None,
    smear_lambda: Maybe = None, *, bos: int, dtype: torch.dtype,
) -> torch.Tensor:  # fmt: skip
    """Compute it as the contest's records do: every step in the activations' dtype."""
    e = F.embedding(ids, table).to(dtype)
    if bigram is not None and bigram_scale is not None:
        pairs = F.embedding(bigram_slots(ids, bigram.shape[0], bos), bigram).to(dtype)
        e = e + bigram_scale.to(dtype) * pairs
    if smear_w is None or smear_lambda is None:
        return e
    gate = smear_lambda.to(dtype) * torch.sigmoid(products.linear(e[..., : smear_w.shape[0]], smear_w[None]))
    gate = gate * ~starts(ids, bos)[..., None]
    return e + gate * F.pad(e[..., :-1, :], (0, 0, 1, 0))


def _build(
    dtype: torch.dtype, generator: torch.Generator, *, shape: tuple[int, ...], v: int, d: int, slots: int = 0,
    smear: int = 0, strided: bool = False,
) -> Tensors:  # fmt: skip
    ids = torch.randint(0, v, shape, generator=generator)
    built: Tensors = {"ids": ids.t() if strided else ids, "table": normal(v, d, generator=generator)}
    if strided:
        built["table"] = normal(d, v, generator=generator).t()
    if slots:
        built |= {"bigram": normal(slots, d, generator=generator), "bigram_scale": torch.tensor(0.4)}
    if smear:
        built |= {"smear_w": normal(smear, generator=generator), "smear_lambda": torch.tensor(0.7)}
    return {**built, "bos": 1, "dtype": dtype}


def _touched(arguments: Tensors) -> float:
    ids: torch.Tensor = arguments["ids"]
    table: torch.Tensor = arguments["table"]
    return float(ids.numel() * table.shape[1] * (4 + 2 + 2 + 4))


def _case(name: str, build: Callable[..., Tensors], **more: Any) -> Case:
    kept = build.keywords if isinstance(build, partial) else {}
    grads = ("table", *(("bigram", "bigram_scale") if kept.get("slots") else ()),
             *(("smear_w", "smear_lambda") if kept.get("smear") else ()))  # fmt: skip
    return Case(
        op="embed", name=name, build=build, call=embed, reference=_reference, plain=plain, grads=grads,
        touched=_touched, gradcheck=name.startswith("tiny"), **more,
    )  # fmt: skip


# A vocabulary of 5 starts documents often, and some of length 1.
TESTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("tiny", {"shape": (2, 6), "v": 5, "d": 7, "slots": 6, "smear": 3}),
    ("tiny-tokens", {"shape": (6,), "v": 5, "d": 3}),
    ("empty", {"shape": (0,), "v": 5, "d": 8, "slots": 4, "smear": 2}),
    ("one", {"shape": (1,), "v": 5, "d": 8, "slots": 4, "smear": 2}),
    ("rows-of-one", {"shape": (9, 1), "v": 5, "d": 8, "slots": 4, "smear": 2}),
    ("ragged", {"shape": (3, 131), "v": 67, "d": 53, "slots": 129, "smear": 12}),
    ("smear-all", {"shape": (300,), "v": 9, "d": 20, "smear": 20}),
    ("bigram-only", {"shape": (2, 150), "v": 260, "d": 33, "slots": 2}),
    # Rows of both tables longer than the GPU's pieces of the sorted tokens, and more columns than a warp's packs hold.
    ("long-rows", {"shape": (2, 100), "v": 5, "d": 264, "slots": 3, "smear": 12}),
    ("strided", {"shape": (7, 5), "v": 11, "d": 16, "slots": 8, "smear": 4, "strided": True}),
)

CASES = (
    *(_case(name, partial(_build, **more)) for name, more in TESTS),
    _case("pocket", partial(_build, shape=(32, 256), v=1024, d=192, slots=4096, smear=12), bench=True,
          shape="8192x192, V 1024, G 4096"),
    _case("contest", partial(_build, shape=(4, 2048), v=8192, d=512, smear=12), bench=True,
          shape="8192x512, V 8192"),
)  # fmt: skip
