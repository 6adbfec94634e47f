"""Rows for the residual mix and RMSNorm."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from golfcore.ops.cases.base import Case, Tensors, normal
from golfcore.ops.norm import mix_norm, rms_norm
from golfcore.ops.reference.norm import mix_norm as reference
from golfcore.ops.reference.norm import residual as reference_residual
from golfcore.ops.residual import residual

# What a row mixes: y the branch; a, s and b the gains of stream, branch and skip, the last with the skip itself.
NAMES = {"y": "branch", "a": "stream_gain", "s": "branch_gain", "b": "skip_gain"}
TERMS = {
    "plain": "",
    "add": "y",
    "scaled": "ys",
    "mix": "ab",
    "all": "ysab",
    "gain": "a",
    "x0": "b",
    "y-a": "ya",
    "y-x0": "ysb",
}


def plain(
    x: torch.Tensor,
    branch: torch.Tensor | None = None,
    skip: torch.Tensor | None = None,
    *,
    stream_gain: torch.Tensor | None = None,
    branch_gain: torch.Tensor | None = None,
    skip_gain: torch.Tensor | None = None,
    scale: float = 1.0,
    eps: float = 1e-6,
    dtype: torch.dtype | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute it as a training script does: parameters cast to the stream's dtype, torch's own rms_norm."""
    a, s, b = (None if v is None else v.to(x.dtype) for v in (stream_gain, branch_gain, skip_gain))
    if branch is not None:
        x = x + (branch if s is None else s * branch)
    if a is not None:
        x = a * x
    if skip is not None and b is not None:
        x = x + b * skip
    h = F.rms_norm(x, (x.shape[-1],), eps=eps)
    if scale != 1.0:
        h = h * scale
    return x, h.to(dtype or x.dtype)


def plain_residual(x: torch.Tensor, branch: torch.Tensor, branch_gain: torch.Tensor) -> torch.Tensor:
    """Compute the scaled sum as a training script does."""
    return torch.addcmul(x, branch_gain.to(x.dtype), branch)


def _build(
    dtype: torch.dtype, generator: torch.Generator, *, shape: tuple[int, ...], terms: str,
    cast: bool = False, scale: float = 0.7,
) -> Tensors:  # fmt: skip
    branch_dtype = torch.bfloat16 if cast else dtype
    made: Tensors = {"x": normal(*shape, generator=generator, dtype=dtype)}
    if "y" in terms:
        made["branch"] = normal(*shape, generator=generator, dtype=branch_dtype)
    if "b" in terms:
        made["skip"] = normal(*shape, generator=generator, dtype=dtype)
    for letter in terms.replace("y", ""):
        made[NAMES[letter]] = normal(shape[-1], generator=generator)
    return {**made, "scale": scale, **({"dtype": branch_dtype} if cast else {})}


def _strided(dtype: torch.dtype, generator: torch.Generator) -> Tensors:
    made = _build(dtype, generator, shape=(6, 5, 48), terms="ysab")
    made["x"] = normal(6, 5, 96, generator=generator, dtype=dtype)[..., 16:64]
    made["branch"] = normal(48, 5, 6, generator=generator, dtype=dtype).permute(2, 1, 0)
    made["skip"] = normal(5, 6, 48, generator=generator, dtype=dtype).transpose(0, 1)
    return made


def _grads(terms: str) -> tuple[str, ...]:
    return ("x", *(NAMES[letter] for letter in terms), *(("skip",) if "b" in terms else ()))


def _touched(arguments: Tensors) -> float:
    """Forward reads x, branch, skip and writes r, h; backward reads dr, dh, r and these, and writes their gradients."""
    tensors = [arguments[name] for name in ("x", "branch", "skip") if name in arguments]
    each = float(tensors[0].numel() * tensors[0].element_size())
    if len(tensors) == 1 and "stream_gain" not in arguments:
        return 5 * each  # x, h; dh, x, dx
    needed = len(tensors) if "stream_gain" in arguments else len(tensors) - 1
    return each * (len(tensors) + 2 + 3 + needed + len(tensors))


def _normed(function: Callable[..., tuple[torch.Tensor, torch.Tensor]]) -> Callable[..., torch.Tensor]:
    """Without terms to mix the stream is what it was: only the normed output is a result."""
    return lambda **arguments: function(**arguments)[1]


_CALLS: tuple[Callable[..., Any], ...] = (mix_norm, reference, plain)
_PLAIN_CALLS: tuple[Callable[..., Any], ...] = (rms_norm, _normed(reference), _normed(plain))


def _case(name: str, build: Callable[..., Tensors], terms: str, **more: Any) -> Case:
    call, exact, usual = _CALLS if terms else _PLAIN_CALLS
    return Case(
        op="norm", name=name, build=build, call=call, reference=exact, plain=usual, grads=_grads(terms),
        touched=_touched, **more,
    )  # fmt: skip


def _residual(name: str, shape: tuple[int, ...], *, bench: bool = False, strided: bool = False) -> Case:
    def build(dtype: torch.dtype, generator: torch.Generator) -> Tensors:
        made = _strided(dtype, generator) if strided else _build(dtype, generator, shape=shape, terms="ys")
        return {key: made[key] for key in ("x", "branch", "branch_gain")}

    return Case(
        op="residual", name=name, build=build, call=residual, reference=reference_residual,
        plain=plain_residual, grads=("x", "branch", "branch_gain"), gradcheck=name == "tiny", bench=bench,
        shape="x".join(map(str, shape)),
        touched=lambda arguments: 6.0 * arguments["x"].numel() * arguments["x"].element_size(),
    )  # fmt: skip


CASES = (
    _residual("tiny", (2, 3, 5)),
    _residual("empty", (0, 64)),
    _residual("one", (1, 33)),
    _residual("ragged", (3, 45, 200)),
    _residual("strided", (6, 5, 48), strided=True),
    _residual("pocket", (8192, 256), bench=True),
    *(
        _case(f"{kind}-tiny", partial(_build, shape=(2, 3, 5), terms=terms), terms, gradcheck=True)
        for kind, terms in TERMS.items()
    ),
    *(
        _case(f"{kind}-{name}", partial(_build, shape=shape, terms=terms), terms)
        for kind, terms in TERMS.items()
        for name, shape in (("empty", (0, 64)), ("one", (1, 33)), ("ragged", (3, 45, 200)))
    ),
    *(
        _case(
            f"{kind}-cast",
            partial(_build, shape=(131, 72), terms=terms, cast=True),
            terms,
            dtypes=(torch.float32,),
        )
        for kind, terms in TERMS.items()
    ),
    _case("all-strided", _strided, "ysab"),
    _case("all-many-rows", partial(_build, shape=(4500, 16), terms="ysab"), "ysab"),
    *(
        _case(
            f"{kind}-pocket",
            partial(_build, shape=(8192, 256), terms=terms, scale=1.0),
            terms,
            bench=True,
            shape="8192x256",
        )
        for kind, terms in (("plain", ""), ("scaled", "ys"), ("all", "ysab"))
    ),
)
