"""Optimizer steps over many tensors in one call: AdamW and Muon, with the weight average and the bf16 copy.

A step reads and writes each parameter and its state once. Muon's Newton-Schulz products are torch's, on a bank of
same-shape matrices in the precision that the machine multiplies fast, but for the symmetric ones where a processor has
vector instructions for it: a native kernel computes their lower triangle alone. Units for matrices (AMX, a GPU's tensor
cores) multiply them whole: docs/guides/simt.md says why.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch

from golfcore import _core
from golfcore.errors import InputError
from golfcore.ops import kernels, products
from golfcore.ops.arguments import check_float, check_shape
from golfcore.ops.reference import optim as reference
from golfcore.ops.registry import DTYPE_CODE, address, core, define_op, native

Tensors = Sequence[torch.Tensor]
Coefficients = Sequence[tuple[float, float, float]]

# Jordan's quintic (kellerjordan.github.io/posts/muon), the steepest at zero, as the contest's baseline uses it.
QUINTIC: Coefficients = ((3.4445, -4.7750, 2.0315),) * 5
# Polar Express (arXiv:2505.16932): the best polynomial for each step in turn, with the safety factor of the contest.
POLAR_EXPRESS: Coefficients = (
    (8.156555, -22.483293, 15.878770),
    (4.042930, -2.808917, 0.500018),
    (3.891678, -2.772484, 0.506065),
    (3.285754, -2.368129, 0.464490),
    (2.346541, -1.709783, 0.423236),
)
NORM_EPS = 1e-7


@torch.no_grad()
def adamw_(
    params: Tensors, grads: Tensors, exp_avgs: Tensors, exp_avg_sqs: Tensors, *, lr: float | Sequence[float],
    weight_decay: float | Sequence[float] = 0.0, betas: tuple[float, float] = (0.9, 0.95), eps: float = 1e-8,
    step: int, grad_scale: float = 1.0, emas: Tensors = (), ema_decay: float = 0.0, shadows: Tensors = (),
) -> None:  # fmt: skip
    """Take one AdamW step (decoupled weight decay) on every parameter, in place.

    ``p = (1 - lr wd) p - lr m' / (sqrt(v') + eps)`` with bias-corrected moments of ``grad_scale * g``, then
    ``ema = ema_decay ema + (1 - ema_decay) p`` and ``shadow = p`` rounded to bf16.

    Args:
        params: fp32, contiguous.
        grads: fp32 or bf16, the shapes of ``params``.
        exp_avgs, exp_avg_sqs: the moments, fp32.
        lr, weight_decay: one number, or one per parameter.
        betas: decay of the first and of the second moment per step.
        eps: added to the root of the second moment.
        step: the number of this step, from 1.
        grad_scale: factor on every gradient, for clipping by norm without a pass of its own.
        emas: weight averages, fp32; empty for none.
        ema_decay: how much of an average stays per step.
        shadows: bf16 copies for the forward pass; empty for none.

    Raises:
        InputError: lists of different lengths, or a tensor of the wrong shape, dtype or layout.
    """
    rates, decays = _each(lr, len(params)), _each(weight_decay, len(params))
    _check("adamw", params, shadows, grads=grads, exp_avgs=exp_avgs, exp_avg_sqs=exp_avg_sqs, emas=emas or params,
           lr=rates, weight_decay=decays)  # fmt: skip
    if step < 1:
        raise InputError(f"adamw: step = {step}; expected 1 or more, it corrects the moments' bias")
    if not params:
        return
    if native("optim", params[0]):
        _adamw(params, grads, exp_avgs, exp_avg_sqs, rates, decays, list(betas), eps, step, grad_scale, emas, ema_decay,
               shadows)  # fmt: skip
    else:
        reference.adamw_(params, grads, exp_avgs, exp_avg_sqs, rates, decays, betas, eps, step, grad_scale, emas,
                         ema_decay, shadows)  # fmt: skip


@torch.no_grad()
def muon_(
    params: Tensors, grads: Tensors, buffers: Tensors, *, lr: float, momentum: float, weight_decay: float = 0.0,
    coefficients: Coefficients = POLAR_EXPRESS, row_norm: bool = False,
    emas: Tensors = (), ema_decay: float = 0.0, shadows: Tensors = (),
) -> None:  # fmt: skip
    """Take one Muon step on a bank of matrices of one shape, in place.

    ``m = momentum m + g``, ``u = g + momentum m`` (Nesterov), each row of u divided by its norm if ``row_norm``,
    u orthogonalized, ``p = (1 - lr wd) p - lr sqrt(max(1, rows / columns)) u``; ema and shadow as for ``adamw_``.

    Args:
        params: fp32 [R, C] each, contiguous; a bank parameter [B, R, C] is passed as ``bank.unbind()``.
        grads: fp32 or bf16.
        buffers: the momenta, fp32.
        lr, momentum, weight_decay: as in the formula.
        coefficients: (a, b, c) of each Newton-Schulz step: ``POLAR_EXPRESS`` or ``QUINTIC``.
        row_norm: divide each row of the update by its norm before it is orthogonalized.
        emas, ema_decay, shadows: see ``adamw_``.

    Raises:
        InputError: lists of different lengths, matrices of more than one shape, or a tensor of the wrong dtype or
            layout.
    """
    _check("muon", params, shadows, grads=grads, buffers=buffers, emas=emas or params)
    if params:
        update_BRC = muon_update(grads, buffers, momentum=momentum, coefficients=coefficients, row_norm=row_norm)
        muon_apply_(params, update_BRC, lr=lr, weight_decay=weight_decay, emas=emas, ema_decay=ema_decay,
                    shadows=shadows)  # fmt: skip


@torch.no_grad()
def muon_update(
    grads: Tensors, buffers: Tensors, *, momentum: float, coefficients: Coefficients = POLAR_EXPRESS,
    row_norm: bool = False,
) -> torch.Tensor:  # fmt: skip
    """Move the momenta and return the orthogonalized updates: the first half of ``muon_``.

    Returns:
        [B, R, C] in ``update_dtype(buffers[0])``: all that another rank needs to do the second half.

    Raises:
        InputError: as for ``muon_``, or no matrices.
    """
    _check("muon", buffers, (), grads=grads)
    _matrix_shape(buffers)
    if not native("optim", buffers[0]):
        bank_BRC = reference.muon_momentum_(grads, buffers, momentum, row_norm, NORM_EPS)
        return reference.orthogonalize(bank_BRC, coefficients)
    return orthogonalize(_momentum(grads, buffers, momentum, row_norm), coefficients)


@torch.no_grad()
def muon_apply_(
    params: Tensors, update_BRC: torch.Tensor, *, lr: float, weight_decay: float = 0.0, emas: Tensors = (),
    ema_decay: float = 0.0, shadows: Tensors = (),
) -> None:  # fmt: skip
    """Move each matrix by its update, then its average and its bf16 copy: the second half of ``muon_``.

    Raises:
        InputError: as for ``muon_``, or updates of another shape.
    """
    _check("muon", params, shadows, emas=emas or params)
    rows, columns = _matrix_shape(params)
    check_shape("muon", "update", update_BRC, (len(params), rows, columns))
    factor = max(1.0, rows / columns) ** 0.5
    if native("optim", params[0]):
        _apply(params, update_BRC, lr, weight_decay, factor, emas, ema_decay, shadows)
    else:
        reference.muon_apply_(params, update_BRC, lr, weight_decay, factor, emas, ema_decay, shadows)


def orthogonalize(bank_BRC: torch.Tensor, coefficients: Coefficients = POLAR_EXPRESS) -> torch.Tensor:
    """Replace each matrix of a bank by the nearest semi-orthogonal one, by Newton-Schulz iteration.

    Args:
        bank_BRC: [B, R, C] in bf16 or fp32; the Frobenius norm of each matrix is at most 1.
        coefficients: (a, b, c) of each step: ``X <- a X + (b A + c A^2) X`` with ``A = X X^T`` on the short side.

    Raises:
        InputError: ``bank_BRC`` is not a bank of floating-point matrices.
    """
    check_float("orthogonalize", "bank", bank_BRC)
    if bank_BRC.ndim != 3:
        raise InputError(f"orthogonalize: bank has shape {tuple(bank_BRC.shape)}; expected [B, rows, columns]")
    if not len(coefficients) or not bank_BRC.numel():
        return bank_BRC.clone()
    if not native("optim", bank_BRC):
        return reference.orthogonalize(bank_BRC, coefficients)
    result: torch.Tensor = _orthogonalize(bank_BRC, [number for abc in coefficients for number in abc])
    return result


def update_dtype(buffer: torch.Tensor) -> torch.dtype:
    """Return the dtype in which ``muon_update`` multiplies for momenta like ``buffer``: the fast one."""
    if not native("optim", buffer):
        return buffer.dtype
    return products.fast_dtype() if core(buffer) is _core else torch.bfloat16


def _each(value: float | Sequence[float], count: int) -> list[float]:
    return [float(value)] * count if isinstance(value, float | int) else [float(v) for v in value]


def _check(op: str, params: Tensors, shadows: Tensors, **lists: Sequence[Any]) -> None:
    for name, tensors in (*lists.items(), ("shadows", shadows or params)):
        if len(tensors) != len(params):
            raise InputError(f"{op}: {len(tensors)} {name} for {len(params)} params; expected one for each")
    for i, p in enumerate(params):
        check_float(op, f"params[{i}]", p)
        for name, tensors in (("params", params), *lists.items(), ("shadows", shadows)):
            if not tensors or not isinstance(tensors[i], torch.Tensor):
                continue
            t, label = tensors[i], f"{name}[{i}]"
            check_shape(op, label, t, tuple(p.shape))
            expected = {"grads": (p.dtype, torch.bfloat16), "shadows": (torch.bfloat16,)}.get(name, (params[0].dtype,))
            if t.dtype not in expected or t.device != params[0].device:
                raise InputError(
                    f"{op}: {label} is {t.dtype} on {t.device}; expected {' or '.join(map(str, expected))} "
                    f"on {params[0].device}"
                )
            if name != "grads" and not t.is_contiguous():
                raise InputError(f"{op}: {label} is not contiguous; keep it as {label}.contiguous()")
    if params and params[0].dtype == torch.bfloat16:
        raise InputError(f"{op}: params are torch.bfloat16; keep fp32 master weights and pass bf16 copies as shadows")


def _matrix_shape(params: Tensors) -> tuple[int, int]:
    shapes = {tuple(p.shape) for p in params}
    if len(shapes) != 1 or params[0].ndim != 2 or not params[0].numel():
        raise InputError(f"muon: params have shapes {sorted(shapes)}; expected matrices of one shape, none empty")
    return params[0].shape[0], params[0].shape[1]


def _adamw_native(
    params: Tensors, grads: Tensors, m: Tensors, v: Tensors, lr: Sequence[float], weight_decay: Sequence[float],
    betas: Sequence[float], eps: float, step: int, grad_scale: float, emas: Tensors, ema_decay: float, shadows: Tensors,
) -> None:  # fmt: skip
    grads = [g.contiguous() for g in grads]
    rows = kernels.optim_rows(p=params, g=grads, m=m, v=v, ema=emas, shadow=shadows, lr=lr, weight_decay=weight_decay)
    kernels.adamw_step(
        params[0], rows, beta1=betas[0], beta2=betas[1], eps=eps, grad_scale=grad_scale, ema_rate=1 - ema_decay,
        bias1=1 - betas[0] ** step, bias2=1 - betas[1] ** step,
    )  # fmt: skip


def _momentum_native(grads: Tensors, buffers: Tensors, momentum: float, row_norm: bool) -> torch.Tensor:
    rows, columns = buffers[0].shape
    grads = [g.contiguous() for g in grads]
    bank_BRC = buffers[0].new_empty(len(buffers), rows, columns, dtype=update_dtype(buffers[0]))
    norms = buffers[0].new_empty(len(buffers), rows)  # workspace
    kernels.muon_momentum(
        buffers[0], kernels.optim_rows(g=grads, m=buffers), rows=rows, columns=columns, momentum=momentum,
        row_norm=row_norm, eps=NORM_EPS, bank_dtype=DTYPE_CODE[bank_BRC.dtype], bank=address(bank_BRC),
        norms=address(norms),
    )  # fmt: skip
    return bank_BRC


def _orthogonalize_cpu(bank_BRC: torch.Tensor, flat: Sequence[float]) -> torch.Tensor:
    (x,) = products.widened(bank_BRC)
    tiles = x.dtype == torch.bfloat16 and products.route().tiles
    if not tiles and x.dtype in DTYPE_CODE and _core.has_symmetric_product(DTYPE_CODE[x.dtype]):
        return _by_symmetric_products(x.contiguous(), _steps(flat)).to(bank_BRC.dtype)
    return _by_torch(x, flat).to(bank_BRC.dtype)


def _steps(flat: Sequence[float]) -> list[tuple[float, ...]]:
    return [tuple(flat[i : i + 3]) for i in range(0, len(flat), 3)]


def _by_symmetric_products(x: torch.Tensor, steps: Sequence[tuple[float, ...]]) -> torch.Tensor:
    """One plain product for each polynomial: a I joins it before it is rounded.

    Where the matrices are at least twice as long as wide, steps go in pairs: the second polynomial comes from the short
    side's products, which saves two of four long ones. In bf16 the first step stands alone, its polynomial is the
    steepest, and so does the last: it starts from the matrices as they are and undoes what the pairs' roundings did to
    the singular values. With a pair at either end results were off two to five times as far as without pairs. In fp32
    pairs from the first step on are as accurate as torch's products.
    """
    wide = x.shape[1] <= x.shape[2]
    short, long = sorted(x.shape[1:])
    size = 2 if long >= 2 * short else 1
    alone = {len(steps) - 1} if x.dtype == torch.bfloat16 else set()
    cuts = sorted({0, *range(len(alone), len(steps), size), *alone, len(steps)})
    code = DTYPE_CODE[x.dtype]
    packed = x.new_empty(_core.polynomial_workspace(code, len(x), short, long), dtype=torch.uint8)
    square, poly = x.new_empty(2 * size - 1, len(x), short, short), x.new_empty(len(x), short, short)
    results = torch.empty_like(x), torch.empty_like(x)  # in turn: the caller's bank is only read
    for turn, (begin, end) in enumerate(itertools.pairwise(cuts)):
        rows, y = x if wide else x.mT, results[turn % 2]
        kernels.newton_schulz_polynomial(
            dtype=code, x=address(rows), square=address(square), out=address(poly), shape=rows.shape,
            strides=rows.stride(), coefficients=[number for abc in steps[begin:end] for number in abc],
            packed=address(packed),
        )  # fmt: skip
        x = torch.bmm(poly, x, out=y) if wide else torch.bmm(x, poly, out=y)
    return x


def _by_torch(bank_BRC: torch.Tensor, flat: Sequence[float]) -> torch.Tensor:
    x = bank_BRC.contiguous()
    wide = x.shape[1] <= x.shape[2]
    for a, b, c in _steps(flat):
        gram = torch.bmm(x, x.mT) if wide else torch.bmm(x.mT, x)
        poly = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, poly, x, beta=a) if wide else torch.baddbmm(x, x, poly, beta=a)
    return x


def _apply_native(
    params: Tensors, update_BRC: torch.Tensor, lr: float, weight_decay: float, factor: float, emas: Tensors,
    ema_decay: float, shadows: Tensors,
) -> None:  # fmt: skip
    lrs, decays, update_BRC = [lr] * len(params), [weight_decay] * len(params), update_BRC.contiguous()
    kernels.muon_apply(
        params[0], kernels.optim_rows(p=params, ema=emas, shadow=shadows, lr=lrs, weight_decay=decays),
        update_dtype=DTYPE_CODE[update_BRC.dtype], update=address(update_BRC), factor=factor, ema_rate=1 - ema_decay,
    )  # fmt: skip


_adamw = define_op(
    "optim",
    "adamw_(Tensor(a!)[] params, Tensor[] grads, Tensor(b!)[] m, Tensor(c!)[] v, float[] lr, float[] weight_decay, "
    "float[] betas, float eps, int step, float grad_scale, Tensor(d!)[] emas, float ema_decay, Tensor(e!)[] shadows)"
    " -> ()",
    _adamw_native,
    lambda *_: None,
    device=_adamw_native,
)
_momentum = define_op(
    "optim",
    "muon_momentum_(Tensor[] grads, Tensor(a!)[] buffers, float momentum, bool row_norm) -> Tensor",
    _momentum_native,
    lambda grads, buffers, momentum, row_norm: buffers[0].new_empty(
        len(buffers), *buffers[0].shape, dtype=update_dtype(buffers[0])
    ),
    device=_momentum_native,
)
_orthogonalize = define_op(
    "optim",
    "orthogonalize(Tensor bank, float[] coefficients) -> Tensor",
    _orthogonalize_cpu,
    lambda bank, coefficients: bank.new_empty(bank.shape),
    device=_by_torch,
)
_apply = define_op(
    "optim",
    "muon_apply_(Tensor(a!)[] params, Tensor update, float lr, float weight_decay, float factor, "
    "Tensor(b!)[] emas, float ema_decay, Tensor(c!)[] shadows) -> ()",
    _apply_native,
    lambda *_: None,
    device=_apply_native,
)
