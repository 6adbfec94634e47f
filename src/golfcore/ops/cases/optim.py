"""Rows for the optimizer steps: each call works on copies and returns the new state."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from golfcore.ops import optim, products
from golfcore.ops.cases.base import Case, Tensors, normal
from golfcore.ops.reference import optim as reference

LR, DECAY, BETAS, EPS, STEP, GRAD_SCALE, EMA = 0.03, 0.1, (0.9, 0.95), 1e-8, 3, 0.5, 0.9


Maybe = torch.Tensor | None


def _split(x: torch.Tensor, sizes: tuple[int, ...]) -> list[torch.Tensor]:
    return list(torch.split(x, list(sizes)))


def _adamw_in_place(
    p: torch.Tensor, g: torch.Tensor, m: torch.Tensor, v: torch.Tensor, ema: torch.Tensor, shadow: Maybe,
    sizes: tuple[int, ...],
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    params, grads, m_s, v_s, emas = (_split(x, sizes) for x in (p, g, m, v, ema))
    shadows = [] if shadow is None else _split(shadow, sizes)
    optim.adamw_(params, grads, m_s, v_s, lr=LR, weight_decay=DECAY, betas=BETAS, eps=EPS, step=STEP,
                 grad_scale=GRAD_SCALE, emas=emas, ema_decay=EMA, shadows=shadows)  # fmt: skip
    return p, m, v, ema, p if shadow is None else shadow


def _adamw_reference(
    p: torch.Tensor, g: torch.Tensor, m: torch.Tensor, v: torch.Tensor, ema: torch.Tensor, shadow: Maybe,
    sizes: tuple[int, ...],
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    shadows = [] if shadow is None else [shadow]
    reference.adamw_([p], [g], [m], [v], [LR], [DECAY], BETAS, EPS, STEP, GRAD_SCALE, [ema], EMA, shadows)
    return p, m, v, ema, p if shadow is None else shadow


def _adamw_plain(
    p: torch.Tensor, g: torch.Tensor, m: torch.Tensor, v: torch.Tensor, ema: torch.Tensor, shadow: Maybe,
    sizes: tuple[int, ...],
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    params, grads, m_s, v_s, emas = (_split(x, sizes) for x in (p, g.float(), m, v, ema))
    torch._fused_adamw_(
        params, grads, m_s, v_s, [], [p.new_tensor(float(STEP)) for _ in params], lr=LR, beta1=BETAS[0],
        beta2=BETAS[1], weight_decay=DECAY, eps=EPS, amsgrad=False, maximize=False,
        grad_scale=p.new_tensor(1 / GRAD_SCALE), found_inf=p.new_tensor(0.0),
    )  # fmt: skip
    torch._foreach_lerp_(emas, params, 1 - EMA)
    if shadow is None:
        return p, m, v, ema, p
    torch._foreach_copy_(_split(shadow, sizes), params)
    return p, m, v, ema, shadow


def _build_adamw(
    dtype: torch.dtype, generator: torch.Generator, *, sizes: tuple[int, ...], shadow: bool = True
) -> Tensors:
    n = sum(sizes)
    return {
        "p": normal(n, generator=generator), "g": normal(n, generator=generator, dtype=dtype),
        "m": normal(n, generator=generator), "v": normal(n, generator=generator).square(),
        "ema": normal(n, generator=generator), "shadow": torch.zeros(n).bfloat16() if shadow else None, "sizes": sizes,
    }  # fmt: skip


def _muon_in_place(
    p: torch.Tensor, g: torch.Tensor, m: torch.Tensor, ema: torch.Tensor, shadow: torch.Tensor, row_norm: bool,
    coefficients: optim.Coefficients,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    optim.muon_(p.unbind(), g.unbind(), m.unbind(), lr=0.02, momentum=0.95, weight_decay=0.1, row_norm=row_norm,
                coefficients=coefficients, emas=ema.unbind(), ema_decay=EMA, shadows=shadow.unbind())  # fmt: skip
    return p, m, ema, shadow


def _muon_composed(
    orthogonalize: Callable[..., torch.Tensor], p: torch.Tensor, g: torch.Tensor, m: torch.Tensor, ema: torch.Tensor,
    shadow: torch.Tensor, row_norm: bool, coefficients: optim.Coefficients,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    bank = reference.muon_momentum_(g.unbind(), m.unbind(), 0.95, row_norm, optim.NORM_EPS)
    factor = max(1.0, p.shape[1] / p.shape[2]) ** 0.5
    update = orthogonalize(bank, coefficients)
    reference.muon_apply_(p.unbind(), update, 0.02, 0.1, factor, ema.unbind(), EMA, shadow.unbind())
    return p, m, ema, shadow


def _torch_muon(
    p: torch.Tensor, g: torch.Tensor, m: torch.Tensor, ema: torch.Tensor, shadow: torch.Tensor, row_norm: bool,
    coefficients: optim.Coefficients,
) -> None:  # fmt: skip
    """Do the step of torch.optim.Muon, matrix by matrix; then the average and the copy."""
    from torch.optim._muon import muon

    params = list(p.unbind())
    with torch_muon_in_fast_precision():
        muon(params, list(g.float().unbind()), list(m.unbind()), lr=0.02, weight_decay=0.1, momentum=0.95,
             nesterov=True, ns_coefficients=optim.QUINTIC[0], ns_steps=len(coefficients), eps=optim.NORM_EPS,
             adjust_lr_fn="original", has_complex=False)  # fmt: skip
    torch._foreach_lerp_(list(ema.unbind()), params, 1 - EMA)
    torch._foreach_copy_(list(shadow.unbind()), params)


@contextlib.contextmanager
def torch_muon_in_fast_precision() -> Iterator[None]:
    """Make torch.optim.Muon multiply in fp32 inside the block if the processor has no bf16 instructions.

    Torch's own rounds to bf16 on every machine, which without such instructions is some 100 times slower: no rival.
    """
    from torch.optim import _muon

    before = _muon._zeropower_via_newtonschulz

    def in_fp32(grad: torch.Tensor, abc: tuple[float, float, float], steps: int, eps: float) -> torch.Tensor:
        bank = (grad / grad.norm().clamp(min=eps))[None]
        return _newton_schulz(bank, [abc] * steps)[0]

    if products.fast_dtype() == torch.float32:
        _muon._zeropower_via_newtonschulz = in_fp32  # type: ignore[assignment]
    try:
        yield
    finally:
        _muon._zeropower_via_newtonschulz = before


def _orthogonalize_plain(bank: torch.Tensor, coefficients: optim.Coefficients) -> torch.Tensor:
    """Newton-Schulz as the contest's scripts write it; each product is rounded to the dtype of ``muon_update``."""
    return _newton_schulz(bank.to(optim.update_dtype(bank)), coefficients)


def _newton_schulz(x: torch.Tensor, coefficients: optim.Coefficients) -> torch.Tensor:
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    for a, b, c in coefficients:
        gram = _rounded(torch.bmm, x, x.mT)
        x = _rounded(torch.baddbmm, x, _rounded(torch.baddbmm, gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def _rounded(function: Callable[..., torch.Tensor], *operands: torch.Tensor, **options: Any) -> torch.Tensor:
    """A product in the fast precision, rounded once to the dtype of its operands."""
    return function(*products.widened(*operands), **options).to(operands[0].dtype)


def _build_muon(
    dtype: torch.dtype, generator: torch.Generator, *, shape: tuple[int, int, int], row_norm: bool = False,
    coefficients: optim.Coefficients = optim.POLAR_EXPRESS, zeros: bool = False,
) -> Tensors:  # fmt: skip
    g = normal(*shape, generator=generator, dtype=dtype)
    m = normal(*shape, generator=generator)
    return {
        "p": normal(*shape, generator=generator), "g": g * 0 if zeros else g, "m": m * 0 if zeros else m,
        "ema": normal(*shape, generator=generator), "shadow": torch.zeros(shape).bfloat16(),
        "row_norm": row_norm, "coefficients": coefficients,
    }  # fmt: skip


def _touched_adamw(arguments: Tensors) -> float:
    g: torch.Tensor = arguments["g"]
    return g.numel() * (4.0 * 8 + g.element_size() + (2.0 if arguments["shadow"] is not None else 0.0))


def _muon_flops(shape: tuple[int, int, int]) -> float:
    b, (short, long) = shape[0], sorted(shape[1:])
    return 5.0 * b * (4.0 * short * short * long + 2.0 * short**3)


def _on_copies(function: Callable[..., Any], **arguments: Any) -> Any:
    return function(**{k: x.clone() if isinstance(x, torch.Tensor) else x for k, x in arguments.items()})


def _case(name: str, build: Callable[..., Tensors], **more: Any) -> Case:
    adamw = name.startswith("adamw")
    call, exact, plain = (_adamw_in_place, _adamw_reference, _adamw_plain) if adamw else (
        _muon_in_place, partial(_muon_composed, reference.orthogonalize), partial(_muon_composed, _orthogonalize_plain)
    )  # fmt: skip
    return Case(
        op="optim", name=name, build=build, call=partial(_on_copies, call), reference=partial(_on_copies, exact),
        plain=partial(_on_copies, plain), in_place=(call, exact, plain if adamw else _torch_muon),
        torch_products=not adamw, touched=_touched_adamw if adamw else lambda _: 0.0, **more,
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
            ("whole", (4096, 8192 + 64), True),
            ("many-tensors", (7, 16) * 50, True),  # more than a launch on a GPU takes
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
            ("many-small", (50, 5, 9), {}),
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
