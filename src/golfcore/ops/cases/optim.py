"""Rows for the optimiser steps: each call works on copies and returns the new state."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from golfcore.ops import optim
from golfcore.ops.cases.base import Case, Tensors, normal
from golfcore.ops.reference import optim as reference

LR, DECAY, BETAS, EPS, STEP, GRAD_SCALE, EMA = 0.03, 0.1, (0.9, 0.95), 1e-8, 3, 0.5, 0.9


def _split(x: torch.Tensor, sizes: tuple[int, ...]) -> list[torch.Tensor]:
    return list(torch.split(x, list(sizes)))


def _state(sizes: tuple[int, ...], *flat: torch.Tensor) -> list[list[torch.Tensor]]:
    """Copies of flat tensors as lists of tensors of the given sizes."""
    return [_split(x.clone(), sizes) for x in flat]


def _adamw(
    p: torch.Tensor, g: torch.Tensor, m: torch.Tensor, v: torch.Tensor, ema: torch.Tensor, sizes: tuple[int, ...],
    shadow: bool,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    params, m_s, v_s, emas = _state(sizes, p, m, v, ema)
    shadows = _split(p.bfloat16(), sizes) if shadow else []
    optim.adamw_(params, _split(g, sizes), m_s, v_s, lr=LR, weight_decay=DECAY, betas=BETAS, eps=EPS,
                 step=STEP, grad_scale=GRAD_SCALE, emas=emas, ema_decay=EMA,
                 shadows=shadows)  # fmt: skip
    return tuple(torch.cat(x) for x in (params, m_s, v_s, emas, shadows or params))


def _adamw_reference(
    p: torch.Tensor, g: torch.Tensor, m: torch.Tensor, v: torch.Tensor, ema: torch.Tensor, sizes: tuple[int, ...],
    shadow: bool,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    params, m_s, v_s, emas = _state(sizes, p, m, v, ema)
    count = len(params)
    reference.adamw_(
        params, _split(g, sizes), m_s, v_s, [LR] * count, [DECAY] * count,
        BETAS, EPS, STEP, GRAD_SCALE, emas, EMA, [],
    )  # fmt: skip
    return tuple(torch.cat(x) for x in (params, m_s, v_s, emas, params))


def _adamw_plain(
    p: torch.Tensor, g: torch.Tensor, m: torch.Tensor, v: torch.Tensor, ema: torch.Tensor, sizes: tuple[int, ...],
    shadow: bool,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    params, m_s, v_s, emas = _state(sizes, p, m, v, ema)
    steps = [torch.tensor(float(STEP)) for _ in params]
    torch._fused_adamw_(
        params, _split(GRAD_SCALE * g.float(), sizes), m_s, v_s, [], steps, lr=LR,
        beta1=BETAS[0], beta2=BETAS[1], weight_decay=DECAY, eps=EPS,
        amsgrad=False, maximize=False,
    )  # fmt: skip
    torch._foreach_lerp_(emas, params, 1 - EMA)
    shadows = [x.bfloat16() for x in params] if shadow else params
    return tuple(torch.cat(x) for x in (params, m_s, v_s, emas, shadows))


def _build_adamw(
    dtype: torch.dtype, generator: torch.Generator, *, sizes: tuple[int, ...], shadow: bool = True
) -> Tensors:
    n = sum(sizes)
    return {
        "p": normal(n, generator=generator), "g": normal(n, generator=generator, dtype=dtype),
        "m": normal(n, generator=generator), "v": normal(n, generator=generator).square(),
        "ema": normal(n, generator=generator), "sizes": sizes, "shadow": shadow,
    }  # fmt: skip


def _muon(
    p: torch.Tensor, g: torch.Tensor, m: torch.Tensor, row_norm: bool, coefficients: optim.Coefficients
) -> tuple[torch.Tensor, ...]:
    p, m, ema, shadow = p.clone(), m.clone(), p.clone(), p.bfloat16()
    optim.muon_(p.unbind(), g.unbind(), m.unbind(), lr=0.02, momentum=0.95, weight_decay=0.1, row_norm=row_norm,
                coefficients=coefficients, emas=ema.unbind(), ema_decay=0.9, shadows=shadow.unbind())  # fmt: skip
    return p, m, ema, shadow


def _muon_composed(
    orthogonalise: Callable[..., torch.Tensor], p: torch.Tensor, g: torch.Tensor, m: torch.Tensor, row_norm: bool,
    coefficients: optim.Coefficients,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    p, m, ema = p.clone(), m.clone(), p.clone()
    bank = reference.muon_momentum_(g.unbind(), m.unbind(), 0.95, row_norm, optim.NORM_EPS)
    factor = max(1.0, p.shape[1] / p.shape[2]) ** 0.5
    update = orthogonalise(bank, coefficients)
    reference.muon_apply_(p.unbind(), update, 0.02, 0.1, factor, ema.unbind(), 0.9, ())
    return p, m, ema, p if p.dtype == torch.float64 else p.bfloat16()


def _orthogonalise_plain(bank: torch.Tensor, coefficients: optim.Coefficients) -> torch.Tensor:
    """The contest's: bf16 throughout, ``a X`` added to the rounded product."""
    x = bank.bfloat16()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    for a, b, c in coefficients:
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def _build_muon(
    dtype: torch.dtype, generator: torch.Generator, *, shape: tuple[int, int, int], row_norm: bool = False,
    coefficients: optim.Coefficients = optim.POLAR_EXPRESS, zeros: bool = False,
) -> Tensors:  # fmt: skip
    g = normal(*shape, generator=generator, dtype=dtype)
    m = normal(*shape, generator=generator)
    return {
        "p": normal(*shape, generator=generator), "g": g * 0 if zeros else g, "m": m * 0 if zeros else m,
        "row_norm": row_norm, "coefficients": coefficients,
    }  # fmt: skip


def _touched_adamw(arguments: Tensors) -> float:
    g: torch.Tensor = arguments["g"]
    return g.numel() * (4.0 * 8 + g.element_size() + (2.0 if arguments["shadow"] else 0.0))


def _muon_flops(shape: tuple[int, int, int]) -> float:
    b, (short, long) = shape[0], sorted(shape[1:])
    return 5.0 * b * (4.0 * short * short * long + 2.0 * short**3)


def _case(name: str, build: Callable[..., Tensors], **more: Any) -> Case:
    adamw = name.startswith("adamw")
    functions = (_adamw, _adamw_reference, _adamw_plain) if adamw else (
        _muon, partial(_muon_composed, reference.orthogonalise), partial(_muon_composed, _orthogonalise_plain)
    )  # fmt: skip
    call, exact, plain = functions
    return Case(
        op="optim", name=name, build=build, call=call, reference=exact, plain=plain, torch_products=not adamw,
        touched=_touched_adamw if adamw else lambda _: 0.0, **more,
    )  # fmt: skip


CASES = (
    *(
        _case(f"adamw-{name}", partial(_build_adamw, sizes=sizes, shadow=shadow))
        for name, sizes, shadow in (
            ("tiny", (5, 3), True),
            ("bare", (5, 3), False),
            ("one", (1,), True),
            ("empty-among", (0, 7, 0, 9), True),
            ("ragged", (70001, 1, 32768, 333), True),
        )
    ),
    *(
        _case(f"muon-{name}", partial(_build_muon, shape=shape, **more))
        for name, shape, more in (
            ("square", (3, 48, 48), {}),
            ("wide", (2, 33, 130), {}),
            ("tall", (2, 130, 33), {}),
            ("rows", (2, 40, 72), {"row_norm": True}),
            ("quintic", (2, 64, 96), {"coefficients": optim.QUINTIC}),
            ("many", (9, 32, 64), {}),
            ("whole-waves", (3, 520, 1030), {}),
            ("vector", (2, 1, 19), {}),
            ("zeros", (2, 16, 24), {"zeros": True}),
            ("zero-rows", (2, 16, 24), {"zeros": True, "row_norm": True}),
        )
    ),
    _case("adamw-frontier", partial(_build_adamw, sizes=(2048 * 512,) * 34), bench=True, shape="35.7M"),
    *(
        _case(f"muon-{name}", partial(_build_muon, shape=shape), bench=True, shape="x".join(map(str, shape)),
              flops=_muon_flops(shape))
        for name, shape in (
            ("qo", (22, 512, 512)), ("kv", (22, 256, 512)), ("up", (11, 2048, 512)), ("down", (11, 512, 2048)),
            ("pocket", (16, 192, 192)), ("pocket-up", (8, 768, 192)),
        )
    ),
)  # fmt: skip
